"""The dashboard's routes: the page at `/`, the API's documentation at `/docs`, and their files below `/dashboard/`."""

import os
from http import HTTPStatus
from pathlib import Path, PurePath
from typing import Final

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from keywarp.videos import sample_video

PREFIX: Final = "/dashboard/"
PAGE: Final = Path(__file__).with_name("page")
VENDOR: Final = PAGE / "vendor"
INDEX: Final = "index.html"
DOCS: Final = "docs.html"
# The types of files that a browser loads. Others, such as type declarations, aren't served. The system's table of types
# isn't used, since it differs from one machine to another.
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
HEADERS: Final = {
    # Browsers keep the file but ask whether it has changed, so that a new server brings a new page.
    "Cache-Control": "no-cache",
    # Only files of this server and nothing inline: no stream's name or source can become code.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# RapiDoc writes styles into its elements. Styles can't load anything under this policy.
DOCS_POLICY: Final = HEADERS["Content-Security-Policy"].replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")


class DashboardFiles(StaticFiles):
    """Files that a browser loads, with the dashboard's headers."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Respond to a request for the file at `path`, relative to the folder.

        Raises:
            HTTPException: With status 404, if there is no such file or its type isn't served.
        """
        try:
            return await super().get_response(path, scope)
        except StarletteHTTPException as error:
            if error.status_code != HTTPStatus.NOT_FOUND:
                raise
            raise HTTPException(HTTPStatus.NOT_FOUND, f"the dashboard has no file {path[:64]!r}") from error

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find a file of a type that is served."""
        if PurePath(path).suffix not in MEDIA_TYPES:
            return "", None
        return super().lookup_path(path)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Respond with a file, or with 304 if the browser has it already."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        file = PurePath(full_path)
        if file.name == DOCS:
            response.headers["Content-Security-Policy"] = DOCS_POLICY
        if response.status_code == HTTPStatus.OK:
            response.headers["Content-Type"] = MEDIA_TYPES[file.suffix]
        return response


router = APIRouter(include_in_schema=False)
_page = DashboardFiles(directory=PAGE, follow_symlink=True)
_vendor = DashboardFiles(directory=VENDOR, follow_symlink=True)
if not (VENDOR / "keywarp.js").exists():  # A wheel has the JavaScript client here; a checkout has it in clients/web.
    _vendor.all_directories.append(Path(__file__).parents[4] / "clients" / "web" / "src")


@router.api_route("/", methods=["GET", "HEAD"])
async def show_page(request: Request) -> Response:
    """Serve the page."""
    return await _page.get_response(INDEX, request.scope)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def show_docs(request: Request) -> Response:
    """Serve the API's documentation."""
    return await _page.get_response(DOCS, request.scope)


@router.api_route(PREFIX + "sample.mp4", methods=["GET", "HEAD"])
async def show_sample() -> Response:
    """Serve a video to try the models on."""
    path = sample_video()
    if path is None or not path.exists():
        raise HTTPException(
            HTTPStatus.NOT_FOUND, "there is no sample video: the server's operator can install the extra `demo`"
        )
    return FileResponse(path, media_type="video/mp4", headers=HEADERS)


@router.api_route(PREFIX + "vendor/{path:path}", methods=["GET", "HEAD"])
async def show_vendored_file(path: str, request: Request) -> Response:
    """Serve a file of the JavaScript client or of another project."""
    return await _vendor.get_response(path, request.scope)


@router.api_route(PREFIX + "{path:path}", methods=["GET", "HEAD"])
async def show_file(path: str, request: Request) -> Response:
    """Serve a file that one of the pages loads."""
    return await _page.get_response(path, request.scope)
