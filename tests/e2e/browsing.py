"""A real browser, on pages of a real server."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, WebSocket, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 30_000  # milliseconds, for anything to appear


class Visit:
    """A page, and what happened on it that nobody sees."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []  # of the console, and exceptions
        self.hosts: set[str] = set()  # that were asked for something
        self.hellos: list[str] = []  # the first message of each WebSocket
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._note(request.url))
        page.on("websocket", self._listen)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)

    def _note(self, url: str) -> None:
        if not url.startswith(("blob:", "data:")):  # what the page has made itself
            self.hosts.add(urlsplit(url).netloc)

    def _listen(self, socket: WebSocket) -> None:
        self._note(socket.url)
        socket.on("framesent", self._read)

    def _read(self, message: str | bytes) -> None:
        if isinstance(message, str) and '"hello"' in message:
            self.hellos.append(message)


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
    scheme: Literal["dark", "light"] = "dark" if dark else "light"
    with browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900}) as context:
        context.grant_permissions(["camera"])
        context.set_default_timeout(PATIENCE)
        visit = Visit(context.new_page())
        visit.page.goto(url)
        yield visit
