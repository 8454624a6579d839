"""Where the server may connect to when it is asked to pull a stream. Nowhere, unless the operator says so.

A name in the list lets a URL in; what the name resolves to is looked at as well, each time, and the connection goes to
just the address that was looked at. So neither a redirect nor a name that suddenly points elsewhere reaches what isn't
allowed.
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
    """One entry of the list: `camera-1.example`, `*.cameras.example`, `192.168.7.0/24`, `10.0.0.5:554`, `*`."""

    host: str | Network  # a name, maybe with wildcards; or addresses
    port: int | None  # None: any

    @classmethod
    def parse(cls, entry: str) -> "Rule":
        """Read an entry.

        Raises:
            ValueError: It isn't one.
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
        """Whether it lets a host in by its name."""
        return isinstance(self.host, str) and fnmatch.fnmatchcase(host, self.host)

    def has(self, address: Address) -> bool:
        """Whether it lists an address."""
        return not isinstance(self.host, str) and address in self.host


class AllowList:
    """Hosts, addresses and networks that may be connected to."""

    def __init__(self, entries: Sequence[str], trusted: str | None = None) -> None:
        """Read the entries.

        Args:
            entries: As `Rule.parse` takes them.
            trusted: A host that is let in wherever it is.

        Raises:
            ValueError: One isn't a `Rule`.
        """
        self._rules = [Rule.parse(entry) for entry in entries]
        self._trusted = trusted

    def addresses(self, host: str, port: int) -> list[str]:
        """Look up where a host may be reached. Waits for the name service.

        A host that is let in by its name isn't let in on this machine, on its links or on multicast: those must be
        listed as addresses.

        Raises:
            SourceForbiddenError: Nowhere, by these rules.
            PullError: The name is unknown.
        """
        trusted = host == self._trusted
        rules = [rule for rule in self._rules if rule.port in (None, port)]
        host = host.lower().rstrip(".")
        named = trusted or any(rule.names(host) for rule in rules)
        if not named and not any(not isinstance(rule.host, str) for rule in rules):
            raise SourceForbiddenError(host, port)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise PullError(f"the host {host[:64]!r} is unknown") from error
        allowed = []
        for *_, (name, *_) in found:
            address = ipaddress.ip_address(str(name).partition("%")[0])
            address = getattr(address, "ipv4_mapped", None) or address
            if any(rule.has(address) for rule in rules) or (named and (trusted or not _is_special(address))):
                allowed.append(str(name))
        if not allowed:
            raise SourceForbiddenError(host, port)
        return allowed


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} isn't a port")
    return int(text)


def _is_special(address: Address) -> bool:
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
