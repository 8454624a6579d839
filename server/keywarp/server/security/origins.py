"""Pages of other sites don't use this server by their visitors' browsers.

A server without keys trusts whoever reaches it, and any page that is open in a browser on this machine does, unless we
look at where it comes from (`Origin`) and, since names can be made to point anywhere (DNS rebinding), at the name that
it called us by (`Host`). With keys there is no need: a page of another site has none.
"""

import ipaddress
import logging
from collections.abc import Callable, Collection
from socket import gethostname
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from keywarp.server.errors import ForbiddenError
from keywarp.server.problems import refuse

log = logging.getLogger(__name__)

PRIVATE: Final = (".localhost", ".local", ".internal", ".home.arpa")  # RFC 6761, 6762, 8375; ICANN 2024


class OriginMiddleware:
    """Refuses what comes from pages of other sites."""

    def __init__(
        self, app: ASGIApp, allowed: Collection[str], host: str, count_rejected: Callable[[str], None]
    ) -> None:
        """Look at all that comes.

        Args:
            app: What it comes to.
            allowed: Origins, such as `https://cameras.example`, that may use the server.
            host: The address that the server listens on; a local one is called by a local name only, others also by
                addresses and by names that nobody elsewhere can have.
            count_rejected: Called with the reason of each rejected request.
        """
        self._app = app
        self._allowed = frozenset(allowed)
        self._names = frozenset(_name(urlsplit(origin).netloc) for origin in self._allowed) | {gethostname().lower()}
        self._is_ours = is_local if is_local(host) else is_private
        self._count_rejected = count_rejected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket") and (fault := self._fault(Headers(scope=scope))):
            log.info("%r refused: %s", scope["path"][:200], fault)
            self._count_rejected("origin")
            await refuse(ForbiddenError(fault), scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _fault(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        if not (self._is_ours(_name(host)) or _name(host) in self._names):
            return f"this server isn't called {host[:64]!r}: `serve --allow-origin` would let it be"
        if origin and origin not in self._allowed and origin.partition("://")[2] != host:
            return f"pages of {origin[:64]!r} may not use this server: `serve --allow-origin` would let them"
        return None


def is_local(host: str) -> bool:
    """Whether a host is this machine by its very name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_private(host: str) -> bool:
    """Whether a host is an address, or a name that only a local network can have: it can't be made to point here."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(PRIVATE))
    return True


def _name(netloc: str) -> str:
    """`[::1]:8080` -> `::1`."""
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0]
    return netloc.rpartition(":")[0] if netloc.count(":") == 1 else netloc
