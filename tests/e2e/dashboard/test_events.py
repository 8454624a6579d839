"""Events in the dashboard: the list, the snapshots, and those of one stream."""

import av
import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import check_accessibility, open_view, visiting, wait_for_pictures, wait_until
from tests.e2e.dashboard.producers import feeding, ip_camera
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


def test_events_are_filtered_and_appear_without_a_reload(browser: Browser, server: Server) -> None:
    with visiting(browser, f"{server.url}/#/events") as visit, feeding(server, "porch"), feeding(server, "shed"):
        page = visit.page
        wait_until(page, lambda: len(httpx.get(f"{server.url}/v1/streams").json()) == 2, "two streams")
        for stream, rule in (("porch", "verdant"), ("shed", "leafy")):
            rules = {"title": stream.title(), "rules": {rule: {"classes": ["green"], "min_area": 0.5}}}
            httpx.put(f"{server.url}/v1/streams/{stream}/rules", json=rules).raise_for_status()
        events = page.get_by_role("list", name="Events").get_by_role("listitem")
        verdant, leafy = (events.filter(has=page.get_by_role("heading", name=name)) for name in ("verdant", "leafy"))
        expect(verdant.first).to_be_visible()
        expect(leafy.first).to_be_visible()
        page.get_by_label("Camera").select_option("Porch")
        expect(leafy).to_have_count(0)
        expect(verdant.first.get_by_role("time")).to_contain_text("2")
        page.get_by_label("Rule").select_option("leafy")
        expect(page.get_by_text("No event fits the filter.")).to_be_visible()
        page.get_by_label("Camera").select_option("All cameras")
        page.get_by_label("Time").select_option("The last hour")
        expect(leafy.first).to_be_visible()
        expect(verdant).to_have_count(0)
        before = leafy.first.get_by_role("time").get_attribute("datetime")
        shed = httpx.get(f"{server.url}/v1/streams/shed/rules").json()
        httpx.put(f"{server.url}/v1/streams/shed/rules", json=shed).raise_for_status()  # ends the event; another begins
        expect(leafy.first.get_by_role("time")).not_to_have_attribute("datetime", str(before))
        check_accessibility(page, "filtered events")
        assert visit.errors == []


def test_a_clip_is_shown_and_saved(browser: Browser, server: Server) -> None:
    with visiting(browser, f"{server.url}/#/events") as visit, ip_camera() as address:
        page = visit.page
        created = httpx.post(f"{server.url}/v1/streams", json={"id": "lane", "source": address})
        created.raise_for_status()
        rules = {"rules": {"filmed": {"classes": ["green"], "min_area": 0.5}}, "clip_after": 1, "clip_before": 1}
        httpx.put(f"{server.url}/v1/streams/lane/rules", json=rules).raise_for_status()
        httpx.post(f"{server.url}/v1/streams/lane/pause").raise_for_status()
        httpx.post(f"{server.url}/v1/streams/lane/resume").raise_for_status()  # a connection with clips
        event = page.get_by_role("list", name="Events").get_by_role("listitem").filter(has_text="filmed").first
        clip = event.get_by_role("button", name="Clip")
        dialog = page.get_by_role("dialog", name="filmed, lane")
        expect(clip).to_be_visible()
        for _ in range(10):  # the clip is complete after a second
            clip.click()
            try:
                expect(dialog).to_be_visible(timeout=1000)
                break
            except AssertionError:
                continue
        check_accessibility(page, "clip")
        with page.expect_download() as saving:
            dialog.get_by_role("link", name="Save").click()
        with av.open(saving.value.path()) as video:
            assert sum(1 for _ in video.decode(video=0)) > 5
        dialog.get_by_role("button", name="Close").click()
        expect(dialog).to_have_count(0)
        httpx.delete(f"{server.url}/v1/streams/lane").raise_for_status()
