"""The allow-list of hosts that streams may be pulled from. It is empty unless the operator fills it.

A host is resolved again for each connection, its addresses are checked, and the connection goes to an address that was
checked. So neither a redirect nor a changed DNS record leads to a host that isn't allowed.
"""

import fnmatch
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from keywarp.server.errors import PullError, SourceForbiddenError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of the allow-list: `camera-1.example`, `*.cameras.example`, `192.168.7.0/24`, `10.0.0.5:554`, `*`."""

    host: str | Network  # a host name, which may have wildcards, or a network
    port: int | None  # or None for any port

    @classmethod
    def parse(cls, entry: str) -> "Rule":
        """Read an entry.

        Raises:
            ValueError: If the entry is neither a host name nor an address nor a network, or its port is invalid.
        """
        host, port = entry, None
        if entry.startswith("["):  # [::1]:554
            host, _, rest = entry[1:].partition("]")
            if rest:
                port = _port(rest.removeprefix(":"))
        elif entry.count(":") == 1:
            host, _, rest = entry.partition(":")
            port = _port(rest)
        try:
            return cls(ipaddress.ip_network(host), port)
        except ValueError as error:
            if "/" in host or not host.strip() or any(c.isspace() for c in host):
                raise ValueError(f"{entry!r} is neither a host name nor an address nor a network: {error}") from error
        return cls(host.lower(), port)

    def names(self, host: str) -> bool:
        """Return whether the entry allows a host by its name."""
        return isinstance(self.host, str) and fnmatch.fnmatchcase(host, self.host)

    def has(self, address: Address) -> bool:
        """Return whether the entry's network contains an address."""
        return not isinstance(self.host, str) and address in self.host


class AllowList:
    """The hosts, addresses and networks that streams may be pulled from."""

    def __init__(self, entries: Sequence[str], trusted: str | None = None) -> None:
        """Read the entries.

        Args:
            entries: The entries, in the form that `Rule.parse` reads.
            trusted: A host that is allowed at any address, or None.

        Raises:
            ValueError: If an entry is invalid.
        """
        self._rules = [Rule.parse(entry) for entry in entries]
        self._trusted = trusted

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the allowed addresses of a host. Blocks while the name is resolved.

        An entry with a host name doesn't allow loopback, link-local and multicast addresses: those must be listed as
        addresses.

        Args:
            host: The host's name or address.
            port: The port to connect to.

        Raises:
            SourceForbiddenError: If the allow-list has none of the host's addresses.
            PullError: If the host can't be resolved.
        """
        trusted = host == self._trusted
        rules = [rule for rule in self._rules if rule.port in (None, port)]
        host = host.lower().rstrip(".")
        is_named = trusted or any(rule.names(host) for rule in rules)
        if not is_named and not any(not isinstance(rule.host, str) for rule in rules):
            raise SourceForbiddenError(host, port)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise PullError(f"the host {host[:64]!r} is unknown: its name can't be resolved") from error
        allowed = []
        for *_, (name, *_) in found:
            address = ipaddress.ip_address(str(name).partition("%")[0])
            address = getattr(address, "ipv4_mapped", None) or address
            if any(rule.has(address) for rule in rules) or (is_named and (trusted or not _is_special(address))):
                allowed.append(str(name))
        if not allowed:
            raise SourceForbiddenError(host, port)
        return allowed


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} isn't a port from 1 to 65535")
    return int(text)


def _is_special(address: Address) -> bool:
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
