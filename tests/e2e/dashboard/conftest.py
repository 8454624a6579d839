"""One browser and one server with a tiny model for all tests of the dashboard."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import TIMEOUT, Visit, chromium, visiting
from tests.e2e.running import Server, serving
from tests.tiny_bundle import tiny_bundle


# Its scope isn't the session: playwright keeps an event loop running, and later tests couldn't start another one.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT)
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("models") / "tiny").path.parent


@pytest.fixture(scope="package")
def server(browser: Browser, models: Path) -> Iterator[Server]:  # noqa: ARG001 - no server without a browser
    with serving("--allow-pull", "127.0.0.1", models=models) as running:
        yield running


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visit]:
    """A visit of the dashboard without errors, which asks no other host for anything."""
    with visiting(browser, server.url) as visit:
        yield visit
        assert visit.errors == []
        assert visit.hosts == {server.url.removeprefix("http://")}
