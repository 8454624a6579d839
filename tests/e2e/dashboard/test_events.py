"""Events in the dashboard: the list, the snapshots, and those of one stream."""

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import check_accessibility, open_view, visiting, wait_for_pictures
from tests.e2e.dashboard.producers import feeding
from tests.e2e.running import Server

RULES = {
    "title": "Front gate",
    "zones": {"left": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]},
    "rules": {"green": {"classes": ["green"], "zone": "left", "min_area": 0.5}},
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_events_are_listed_with_their_snapshots(browser: Browser, server: Server, dark: bool) -> None:
    with visiting(browser, server.url, dark=dark) as visit, feeding(server, "gate"):
        page = visit.page
        expect(page.get_by_role("link", name="gate")).to_be_visible()
        assert httpx.put(f"{server.url}/v1/streams/gate/rules", json=RULES).is_success
        open_view(page, "Events")
        event = page.get_by_role("list", name="Events").get_by_role("listitem").first
        expect(event.get_by_role("heading", name="green")).to_be_visible()
        expect(event.get_by_text("in left")).to_be_visible()
        image = event.get_by_role("img")
        expect(image).to_have_js_property("complete", True)
        expect(image).not_to_have_js_property("naturalWidth", 0)
        check_accessibility(page, "events")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.set_viewport_size({"width": 1280, "height": 900})
        event.get_by_role("link", name="Front gate", exact=True).click()
        wait_for_pictures(page, 1)
        section = page.get_by_role("region", name="Events of this stream")
        expect(section.get_by_role("heading", name="green").first).to_be_visible()
        expect(page.get_by_text("Front gate").first).to_be_visible()
        check_accessibility(page, "stream with events")
        assert visit.errors == []
