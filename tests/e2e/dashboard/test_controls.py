"""Controls of running streams and of the site file in the dashboard."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import Visit, check_accessibility, visiting, wait_for_pictures, wait_until
from tests.e2e.dashboard.producers import ip_camera
from tests.e2e.running import Server, serving

# Shows a camera's state as the list does, and returns the badge's text and style.
BADGE = """async (stream) => {
    const { showState } = await import("/dashboard/streams.js");
    const badge = document.createElement("span");
    showState(badge, stream);
    return [badge.textContent, badge.className];
}"""


def info(server: Server, stream: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/v1/streams/{stream}").json()
    return found


def test_options_of_a_running_camera_are_changed(visit: Visit, server: Server) -> None:
    page = visit.page
    with ip_camera() as address, ip_camera() as other:
        httpx.post(f"{server.url}/v1/streams", json={"id": "yard", "source": address}).raise_for_status()
        page.goto(f"{server.url}/#/streams/yard")
        wait_for_pictures(page, 1)
        dialog = page.get_by_role("dialog", name="Change yard")
        page.get_by_role("button", name="Change", exact=True).click()
        dialog.get_by_label("Key interval").fill("4")
        dialog.get_by_label("Key frames").select_option("Adaptive")
        dialog.get_by_label("At most").fill("20")
        dialog.get_by_label("Greatest key age").fill("2.5")
        dialog.get_by_label("If the server is busy").select_option("Skip frames")
        dialog.get_by_label("Most frames per second").fill("12.5")
        dialog.get_by_label("Hidden regions").fill("0,0 1,0 1,0.2\n0,1 0.5,1 0.5,0.8 0,0.8\n")
        dialog.get_by_label("Another address").fill(other)
        check_accessibility(page, "change")
        dialog.get_by_role("button", name="Change").click()
        expect(dialog).to_have_count(0)
        expect(page.get_by_role("definition").get_by_text("4 on average, at most 20")).to_be_visible()
        found = info(server, "yard")
        assert (found["interval"], found["max_interval"], found["max_age"]) == (4, 20, 2.5)
        assert (found["mode"], found["source"], found["max_fps"]) == ("latest", other, 12.5)
        assert found["hidden"] == [[[0, 0], [1, 0], [1, 0.2]], [[0, 1], [0.5, 1], [0.5, 0.8], [0, 0.8]]]
        expect(page.get_by_role("definition").get_by_text("12.5", exact=True)).to_be_visible()
        wait_until(page, lambda: info(server, "yard")["state"] == "running", "running")
        page.get_by_role("button", name="Change", exact=True).click()
        expect(dialog.get_by_label("Hidden regions")).to_have_value("0,0 1,0 1,0.2\n0,1 0.5,1 0.5,0.8 0,0.8")
        dialog.get_by_label("Most frames per second").fill("")
        dialog.get_by_label("Hidden regions").fill("")
        dialog.get_by_role("button", name="Change").click()
        expect(dialog).to_have_count(0)
        found = info(server, "yard")
        assert (found.get("max_fps"), found["hidden"], found["interval"]) == (None, [], 4)
        httpx.delete(f"{server.url}/v1/streams/yard").raise_for_status()


def test_a_change_that_is_refused_says_why(browser: Browser, server: Server) -> None:
    httpx.post(f"{server.url}/v1/streams", json={"id": "door", "interval": 7}).raise_for_status()
    with visiting(browser, f"{server.url}/#/streams/door") as visit:
        page = visit.page
        page.get_by_role("button", name="Change", exact=True).click()
        dialog = page.get_by_role("dialog", name="Change door")
        dialog.get_by_label("Key frames").select_option("Adaptive")
        dialog.get_by_label("At most").fill("3")
        dialog.get_by_role("button", name="Change").click()
        expect(dialog.get_by_role("alert")).to_contain_text("max_interval")
        dialog.get_by_role("button", name="Cancel").click()
        assert info(server, "door")["schedule"] == "fixed"
    httpx.delete(f"{server.url}/v1/streams/door").raise_for_status()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_change_of_a_stream_fits_a_small_screen(browser: Browser, server: Server, dark: bool) -> None:
    httpx.post(f"{server.url}/v1/streams", json={"id": "door"}).raise_for_status()
    with visiting(browser, f"{server.url}/#/streams/door", dark=dark) as visit:
        page = visit.page
        page.set_viewport_size({"width": 390, "height": 500})
        page.get_by_role("button", name="Change", exact=True).click()
        dialog = page.get_by_role("dialog", name="Change door")
        dialog.get_by_label("Hidden regions").fill("0,0 1,0")
        dialog.get_by_role("button", name="Change").click()
        expect(dialog.get_by_role("alert")).to_contain_text("hidden")
        expect(dialog.get_by_role("alert")).to_be_in_viewport(ratio=1)
        assert dialog.evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")
        check_accessibility(page, "change on a small screen")
    httpx.delete(f"{server.url}/v1/streams/door").raise_for_status()


def test_the_site_file_is_read_again_and_its_changes_are_told(browser: Browser, models: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    with ip_camera() as address:
        site.write_text(f'[streams.front]\nsource = "{address}"\n')
        with serving("--site", str(site), models=models) as server, visiting(browser, server.url) as visit:
            page = visit.page
            expect(page.get_by_role("row", name="front").get_by_text("Running")).to_be_visible()
            reload = page.get_by_role("button", name="Reload the site file")
            reload.click()
            expect(page.get_by_text("Nothing has changed.")).to_be_visible()
            assert visit.errors == []
            site.write_text(f'[streams.back]\nsource = "{address}"\n')
            reload.click()
            expect(page.get_by_text("Camera added: back. Camera removed: front.")).to_be_visible()
            expect(page.get_by_role("row", name="back").get_by_text("Running")).to_be_visible()
            expect(page.get_by_role("row", name="front")).to_have_count(0)
            check_accessibility(page, "reloaded")
            site.write_text("[streams.back]\n")
            reload.click()
            expect(page.get_by_role("status").get_by_text("source")).to_be_visible()


def test_the_badge_tells_the_truth_about_a_camera(visit: Visit) -> None:
    running = {"state": "running", "frame_age": 0.1, "age": 60, "connected": True}
    for changed, text, style in (
        ({}, "Running", "good"),
        ({"frame_age": 75}, "No result for 1 min 15 s", "bad"),
        ({"frame_age": None}, "No result for 1 min 0 s", "bad"),
        ({"state": "retrying"}, "Retrying", "warn"),
        ({"state": "unauthorized"}, "Wrong password", "bad"),
        ({"state": "paused"}, "Paused", ""),
        ({"state": "failed"}, "Failed", "bad"),
        ({"state": "open", "frame_age": None}, "Waiting for frames", "warn"),
    ):
        assert visit.page.evaluate(BADGE, running | changed) == [text, f"badge {style}"]


def test_a_camera_that_is_away_is_tried_at_once(visit: Visit, server: Server) -> None:
    page = visit.page
    httpx.post(f"{server.url}/v1/streams", json={"id": "far", "source": "http://127.0.0.1:9/"}).raise_for_status()
    page.goto(f"{server.url}/#/streams/far")
    expect(page.locator(".badge")).to_have_text("Retrying")
    with page.expect_request("**/v1/streams/far/resume"):
        page.get_by_role("button", name="Connect now").click()
    expect(page.locator(".badge")).to_have_text("Retrying")
    httpx.delete(f"{server.url}/v1/streams/far").raise_for_status()


def test_the_list_of_streams_fits_every_width(visit: Visit, server: Server) -> None:
    page = visit.page
    source = "http://127.0.0.1:9/a/rather/long/path/to/a/camera/behind/a/recorder?channel=1"
    httpx.post(f"{server.url}/v1/streams", json={"id": "far", "source": source}).raise_for_status()
    httpx.put(f"{server.url}/v1/streams/far/rules", json={"title": "The camera at the far gate"}).raise_for_status()
    expect(page.get_by_text("The camera at the far gate")).to_be_visible()
    for width in (1280, 1100, 900, 700, 390):
        page.set_viewport_size({"width": width, "height": 800})
        table, card = (page.locator(one).bounding_box() for one in (".table", ".card:has(> .table)"))
        assert table is not None
        assert card is not None
        assert table["width"] <= card["width"], width
        name = page.get_by_role("link", name="far").bounding_box()
        assert name is not None
        assert name["width"] > 15, width
    httpx.delete(f"{server.url}/v1/streams/far").raise_for_status()
