"""A real browser on pages of a real server."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, WebSocket, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT = 30_000  # milliseconds for anything to appear


class Visit:
    """A page, and a record of what happens on it out of sight."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []  # warnings and errors in the console, and exceptions
        self.hosts: set[str] = set()  # hosts that the page sent requests to
        self.hellos: list[str] = []  # the first message of each WebSocket
        self.closed_sockets = 0
        page.on("console", self._record_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._record_host(request.url))
        page.on("websocket", self._record_socket)

    def _record_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _record_host(self, url: str) -> None:
        if not url.startswith(("blob:", "data:")):  # The page itself makes those.
            self.hosts.add(urlsplit(url).netloc)

    def _record_socket(self, socket: WebSocket) -> None:
        self._record_host(socket.url)
        socket.on("framesent", self._record_hello)
        socket.on("close", self._count_closed)

    def _record_hello(self, message: str | bytes) -> None:
        if isinstance(message, str) and '"hello"' in message:
            self.hellos.append(message)

    def _count_closed(self, _: WebSocket) -> None:
        self.closed_sockets += 1


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium with a camera that shows a moving pattern; skip the test if it isn't installed."""
    if CHROMIUM is None:
        pytest.skip("Chromium isn't installed: apt-get install chromium")
    options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(browser: Browser, url: str, *, dark: bool = False) -> Iterator[Visit]:
    """Open a page in a fresh profile."""
    scheme: Literal["dark", "light"] = "dark" if dark else "light"
    with browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900}) as context:
        context.grant_permissions(["camera"])
        context.set_default_timeout(TIMEOUT)
        visit = Visit(context.new_page())
        visit.page.goto(url)
        yield visit


def open_view(page: Page, name: str) -> None:
    """Open a view by its link in the navigation."""
    page.get_by_role("navigation").get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_focused()


def tile(page: Page, name: str) -> Locator:
    """Find the value of a tile beside the picture."""
    return page.locator(".view .tile", has=page.get_by_text(name, exact=True)).locator("dd")


def wait_until(page: Page, condition: Callable[[], bool], description: str) -> None:
    """Wait until a condition holds. `wait_for_function` can't, since the page's policy forbids `eval`."""
    deadline = time.monotonic() + TIMEOUT / 1000
    while not condition():
        assert time.monotonic() < deadline, f"never {description}: {page.locator('main').inner_text()}"
        page.wait_for_timeout(50)


def wait_for_tile(page: Page, name: str, least: float) -> None:
    """Wait until a tile's number reaches a value."""

    def reached() -> bool:
        number = re.match(r"[\d.,]+", tile(page, name).inner_text())
        return number is not None and float(number[0].replace(",", "")) >= least

    wait_until(page, reached, f"{name} >= {least}")


def wait_for_pictures(page: Page, least: int) -> None:
    """Wait until the viewer has shown a number of pictures."""
    canvas = page.locator(".viewer canvas")
    wait_until(page, lambda: int(canvas.get_attribute("data-pictures") or 0) >= least, f"{least} pictures")


def check_accessibility(page: Page, where: str) -> None:
    """Run axe-core, which must find nothing."""
    found = Axe().run(page)
    assert found.violations_count == 0, f"{where}: {found.generate_report()}"
