"""Keep web pages of other sites from using this server through their visitors' browsers.

A server without API keys trusts all who can reach it, and so can any page in a browser on this machine. Therefore the
page's site (`Origin`) is checked, and so is the name that the request gives the server (`Host`), because a foreign name
can be made to point here (DNS rebinding). A server with keys needs no such check: pages of other sites have no key.
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

PRIVATE_SUFFIXES: Final = (".localhost", ".local", ".internal", ".home.arpa")  # RFC 6761, 6762, 8375; ICANN 2024


class OriginMiddleware:
    """Middleware that refuses requests from pages of other sites."""

    def __init__(
        self, app: ASGIApp, allowed_origins: Collection[str], host: str, count_refused: Callable[[str], None]
    ) -> None:
        """Wrap an application.

        Args:
            app: The application that gets the accepted requests.
            allowed_origins: Origins, such as `https://cameras.example`, whose pages may use the server.
            host: The address that the server listens on. If it is local, only local names are accepted in `Host`;
                otherwise also addresses and names that exist only in private networks.
            count_refused: Called with the reason of each refused request.
        """
        self._app = app
        self._allowed_origins = frozenset(allowed_origins)
        self._names = frozenset(_name(urlsplit(origin).netloc) for origin in self._allowed_origins) | {
            gethostname().lower()
        }
        self._is_own_name = is_local if is_local(host) else is_private
        self._count_refused = count_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket") and (problem := self._check(Headers(scope=scope))):
            log.info("refused a request for %r: %s", scope["path"][:200], problem)
            self._count_refused("origin")
            await refuse(ForbiddenError(problem), scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> str | None:
        """Return why a request is refused, or None if it is accepted."""
        host, origin = headers.get("host", "").lower(), _origin(headers)
        if not (self._is_own_name(_name(host)) or _name(host) in self._names):
            return f"{host[:64]!r} isn't a name of this server: allow it by `serve --allow-origin`"
        if origin and origin not in self._allowed_origins and origin.partition("://")[2] != host:
            return f"pages of {origin[:64]!r} may not use this server: allow them by `serve --allow-origin`"
        if not origin and headers.get("sec-fetch-site") == "cross-site" and not _follows_link(headers):
            return "a page of another site, which the browser doesn't name, may not use this server"
        return None


def _origin(headers: Headers) -> str:
    """Return the site of the page that makes a request. Browsers send no `Origin` for pictures, but a `Referer`."""
    if (origin := headers.get("origin")) is not None:
        return origin.lower()
    if headers.get("sec-fetch-site") != "cross-site" or _follows_link(headers):
        return ""
    try:
        referrer = urlsplit(headers.get("referer", "").lower())
    except ValueError:
        return ""
    return f"{referrer.scheme}://{referrer.netloc}" if referrer.netloc else ""


def _follows_link(headers: Headers) -> bool:
    """Whether a browser shows the response as a page of its own, which the page with the link can't read."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def is_local(host: str) -> bool:
    """Return whether a host is `localhost`, a name below it or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_private(host: str) -> bool:
    """Return whether a host is an address or a name that exists only in private networks, so no site can rebind it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(PRIVATE_SUFFIXES))
    return True


def _name(netloc: str) -> str:
    """Return the host without its port and brackets: `::1` for `[::1]:8080`."""
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0]
    return netloc.rpartition(":")[0] if netloc.count(":") == 1 else netloc
