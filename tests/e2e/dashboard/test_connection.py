from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from keywarp.server.security.keys import add_key, new_key
from tests.e2e.dashboard.browsing import Visit, check_accessibility, open_view, visiting, wait_for_tile
from tests.e2e.running import Server, serving


def test_the_page_asks_for_a_key_and_uses_it(browser: Browser, models: Path, tmp_path: Path) -> None:
    secret, key = new_key("gate", "stream,metrics")
    add_key(tmp_path / "keys.txt", key)
    with (
        serving("--keys", str(tmp_path / "keys.txt"), models=models) as server,
        visiting(browser, server.url) as visit,
    ):
        page = visit.page
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("Key", exact=True).fill("kw_wrong")
        dialog.get_by_role("button", name="Continue").click()
        expect(dialog.get_by_role("alert")).to_contain_text("isn't an API key")
        check_accessibility(page, "key")
        for _ in range(4):
            page.keyboard.press("Escape")
        for view, title in (("streams/gate", "gate"), ("streams", "Streams")):  # as by Back and Forward
            page.evaluate(f"location.hash = '#/{view}'")
            expect(page.locator("main h1")).to_have_text(title)
        dialog.get_by_label("Key", exact=True).fill(secret)
        dialog.get_by_role("button", name="Continue").click()
        expect(page.get_by_text("No streams yet")).to_be_visible()
        open_view(page, "Camera")
        page.get_by_role("button", name="Start").click()
        wait_for_tile(page, "Results", 2)
        page.reload()
        open_view(page, "Streams")
        expect(page.locator("#server")).to_have_text("Live")


def test_the_page_reconnects_to_a_server_that_restarts(browser: Browser, models: Path) -> None:
    with serving(models=models) as server, visiting(browser, server.url) as visit:
        page = visit.page
        expect(page.locator("#server")).to_have_text("Live")
        server.process.terminate()
        expect(page.locator("#server")).to_have_text("No response, retrying")
        port = server.url.rpartition(":")[2]
        with serving("--port", port, models=models):
            expect(page.locator("#server")).to_have_text("Live")


def test_the_page_notices_a_server_that_never_responds(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url) as visit:
        page = visit.page
        page.add_init_script("""
            const timeout = AbortSignal.timeout.bind(AbortSignal);
            AbortSignal.timeout = () => timeout(1000);
        """)
        page.reload()
        expect(page.locator("#server")).to_have_text("Live")
        page.route("**/v1/fleet", lambda _: None)
        expect(page.locator("#server")).to_have_text("No response, retrying")
        page.unroute("**/v1/fleet")
        expect(page.locator("#server")).to_have_text("Live")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "The server is full: the server has its 64 streams."),
        (503, "Not ready: the server has its 64 streams. Try again in 5 s."),
        (403, "Not allowed: the server has its 64 streams."),
    ],
)
def test_refusals_are_described_in_plain_words(visit: Visit, status: int, message: str) -> None:
    describe = """async (status) => {
        const { describeError } = await import('/dashboard/api.js');
        const { ApiError } = await import('/dashboard/vendor/keywarp.js');
        return describeError(new ApiError({ title: '', status, detail: 'the server has its 64 streams' }, 5));
    }"""
    assert visit.page.evaluate(describe, status) == message
