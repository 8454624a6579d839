import re
from pathlib import Path

import httpx
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import Visit, open_view, tile, visiting, wait_for_pictures, wait_for_tile
from tests.e2e.dashboard.producers import feeding, ip_camera
from tests.e2e.running import Server, serving


def test_a_stream_that_a_client_feeds_can_be_watched(visit: Visit, server: Server) -> None:
    page = visit.page
    with feeding(server, "gate"):
        row = page.get_by_role("row", name="gate")
        expect(row.get_by_text("Running")).to_be_visible()
        expect(row.get_by_role("cell").nth(2)).to_have_text(re.compile(r"[1-9]\d*\.\d"))
        row.get_by_role("link", name="gate").click()
        wait_for_pictures(page, 3)
        wait_for_tile(page, "Frames/s", 1)
        frames = tile(page, "Frames").inner_text()
        expect(tile(page, "Frames")).not_to_have_text(frames)
        expect(tile(page, "Key frames")).to_have_text(re.compile("^(19|2[0-5])%$"))  # one in five
        expect(page.get_by_role("group", name="What was found")).to_have_text(re.compile("green|red"))
    expect(page.get_by_text("This stream")).to_be_visible()
    with feeding(server, "gate"):
        expect(page.locator(".badge")).to_have_text("Running")  # The new stream of the same name is shown.
        wait_for_pictures(page, 1)
    open_view(page, "Streams")
    expect(page.get_by_text("No streams yet")).to_be_visible()


def test_a_stream_can_be_deleted(visit: Visit, server: Server) -> None:
    httpx.post(f"{server.url}/v1/streams", json={"id": "door"}).raise_for_status()
    page = visit.page
    page.get_by_role("link", name="door").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No streams yet")).to_be_visible()
    assert httpx.get(f"{server.url}/v1/streams").json() == []


def test_a_camera_is_pulled_paused_resumed_and_deleted(visit: Visit, server: Server) -> None:
    page = visit.page
    with ip_camera() as address:
        page.get_by_role("button", name="Pull a URL").click()
        page.get_by_label("Address").fill(address)
        page.get_by_label("Name").fill("yard")
        page.get_by_label("Key interval").fill("7")
        page.get_by_label("Greatest key age").fill("2.5")
        page.get_by_role("dialog").get_by_role("button", name="Start").click()
        expect(page.get_by_role("heading", name="yard")).to_be_visible()
        wait_for_pictures(page, 2)
        expect(page.get_by_role("definition").get_by_text(address)).to_be_visible()
        expect(page.get_by_role("definition").get_by_text("2.5 s", exact=True)).to_be_visible()
        page.get_by_role("button", name="Pause").click()
        expect(page.locator(".badge")).to_have_text("Paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.locator(".badge")).to_have_text("Running")
        [info] = httpx.get(f"{server.url}/v1/streams").json()
        assert (info["id"], info["interval"], info["max_age"], info["mode"]) == ("yard", 7, 2.5, "latest")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("No streams yet")).to_be_visible()


def test_a_stream_of_another_server_says_where_it_is(browser: Browser, server: Server, models: Path) -> None:
    """Without a proxy that knows which server has which stream, a server shows only its own pictures."""
    with (
        serving("--peer", server.url, models=models) as first,
        feeding(server, "far"),
        visiting(browser, first.url) as visit,
    ):
        page = visit.page
        page.get_by_role("link", name="far").click()
        expect(page.get_by_text(f"It is on {server.url.removeprefix('http://')}")).to_be_visible()


def test_a_url_that_may_not_be_pulled_is_refused_with_a_reason(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url) as visit:
        page = visit.page
        page.get_by_role("button", name="Pull a URL").click()
        page.get_by_label("Address").fill("rtsp://192.0.2.7/1")
        page.get_by_role("dialog").get_by_role("button", name="Start").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Not allowed: ")
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Pull a URL")).to_be_focused()
