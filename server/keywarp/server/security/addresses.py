"""Limit what one address may have on a server without API keys, so that it can't take everything.

Behind a proxy on this machine that sends `X-Forwarded-For`, that is the address of the proxy's client. Clients on this
machine have no limit.
"""

import ipaddress
from typing import Final
from weakref import WeakValueDictionary

from starlette.types import ASGIApp, Receive, Scope, Send

from keywarp.server.security.quotas import Limits, Quota

_PREFIX: Final = 64  # bits of an IPv6 address that one client usually has all addresses of


class AddressMiddleware:
    """Middleware that gives each request the quota of its client's address."""

    def __init__(self, app: ASGIApp, streams: int) -> None:
        """Wrap an application.

        Args:
            app: The application.
            streams: The most streams that one address may have at a time.
        """
        self._app = app
        self._limits = Limits(streams=streams)
        self._quotas: WeakValueDictionary[str, Quota] = WeakValueDictionary()  # kept by their streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its quota."""
        if scope["type"] in ("http", "websocket") and scope["client"] and (name := network_of(scope["client"][0])):
            quota = self._quotas.get(name)
            if quota is None:
                quota = self._quotas[name] = Quota("", self._limits, address=name)
            scope.setdefault("state", {})["quota"] = quota
        await self._app(scope, receive, send)


def network_of(address: str) -> str | None:
    """Return the part of an address that identifies a client, or None for this machine's own, or what is none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a local socket
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return None if parsed.is_loopback else str(ipaddress.ip_network((parsed, _PREFIX), strict=False))
        parsed = parsed.ipv4_mapped
    return None if parsed.is_loopback else str(parsed)
