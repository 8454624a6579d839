"""A real browser, on pages of a real server."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, WebSocket, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 30_000  # milliseconds, for anything to appear


@dataclass
class Visit:
    """A page, and what happened on it that nobody sees."""

    page: Page
    complaints: list[str] = field(default_factory=list)  # of the console, and exceptions
    hosts: set[str] = field(default_factory=set)  # that were asked for something
    hellos: list[str] = field(default_factory=list)  # the first message of each WebSocket


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium, with a camera that shows a moving pattern; skip where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(browser: Browser, url: str, *, dark: bool = False) -> Iterator[Visit]:
    """Open a page with nothing remembered from others."""
    scheme = "dark" if dark else "light"
    with browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900}) as context:
        context.grant_permissions(["camera"])
        context.set_default_timeout(PATIENCE)
        visit = Visit(context.new_page())
        page = visit.page
        page.on("console", lambda said: said.type in ("error", "warning") and visit.complaints.append(said.text))
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("request", lambda request: visit.hosts.add(request.url.split("/")[2]))
        page.on("websocket", lambda socket: _listen(socket, visit))
        page.goto(url)
        yield visit


def _listen(socket: WebSocket, visit: Visit) -> None:
    visit.hosts.add(socket.url.split("/")[2])
    socket.on("framesent", lambda payload: isinstance(payload, str) and visit.hellos.append(payload))
