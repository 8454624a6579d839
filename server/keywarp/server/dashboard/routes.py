"""The dashboard's routes: `/`, the description of the API at `/docs`, and what they load below `/dashboard/`."""

from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, HTTPException, Request, Response

from keywarp.server.dashboard.assets import read_assets

PREFIX: Final = "/dashboard/"
INDEX: Final = "index.html"
DOCS: Final = "docs.html"
HEADERS: Final = {
    "Cache-Control": "no-cache",  # keep it, but ask whether it is still the same: a new server brings a new page
    # Only what this server serves, nothing inline: whatever a stream's name or source may hold, it can't become code.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Its renderer, which isn't ours, writes styles into its elements; they can load nothing.
DOCS_HEADERS: Final = {
    "Content-Security-Policy": HEADERS["Content-Security-Policy"].replace(
        "style-src 'self'", "style-src 'self' 'unsafe-inline'"
    )
}

router = APIRouter(include_in_schema=False)
_assets = read_assets()


@router.api_route("/", methods=["GET", "HEAD"])
async def show_page(request: Request) -> Response:
    """The page."""
    return _answer(request, INDEX)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def show_docs(request: Request) -> Response:
    """The description of the API, for people."""
    return _answer(request, DOCS)


@router.api_route(PREFIX + "{path:path}", methods=["GET", "HEAD"])
async def show_asset(path: str, request: Request) -> Response:
    """A file that the page loads."""
    return _answer(request, path)


def _answer(request: Request, path: str) -> Response:
    asset = _assets.get(path)
    if asset is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"the dashboard has no file {path[:64]!r}")
    headers = HEADERS | (DOCS_HEADERS if path == DOCS else {}) | {"ETag": asset.etag}
    known = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
    if asset.etag in known:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
