import json
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import (
    Visit,
    open_view,
    tile,
    visiting,
    wait_for_pictures,
    wait_for_tile,
    wait_until,
)
from tests.e2e.running import Server


@pytest.mark.parametrize(("choice", "codec"), [("Automatic", "h264"), ("H.264", "h264"), ("JPEG", "image")])
def test_the_camera_is_streamed_and_its_results_are_drawn(visit: Visit, choice: str, codec: str) -> None:
    page = visit.page
    open_view(page, "Camera")
    page.get_by_label("Sent as").select_option(choice)
    page.get_by_label("If the server is busy").select_option("Keep all frames")
    page.get_by_role("button", name="Start").click()
    wait_for_tile(page, "Results", 12)
    wait_for_pictures(page, 5)
    hello: dict[str, Any] = json.loads(visit.hellos[0])
    assert (hello["codec"], hello["mode"]) == (codec, "lossless")
    expect(page.get_by_role("group", name="What was found")).to_contain_text("green")  # the fake camera's colour
    assert tile(page, "Errors").inner_text() == "0"
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("The camera is off")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_focused()


def test_the_camera_reconnects_when_its_page_is_visible_again(visit: Visit, server: Server) -> None:
    page = visit.page
    page.add_init_script("""
        let hidden = false;
        window.looks = 0;
        Object.defineProperty(document, 'hidden', { get: () => { window.looks += 1; return hidden; } });
        window.hide = (now) => { hidden = now; document.dispatchEvent(new Event('visibilitychange')); };
    """)
    page.reload()
    open_view(page, "Camera")
    page.get_by_role("button", name="Start").click()
    wait_for_tile(page, "Results", 2)
    page.evaluate("hide(true)")
    [stream] = httpx.get(f"{server.url}/v1/streams").json()
    httpx.delete(f"{server.url}/v1/streams/{stream['id']}").raise_for_status()  # as if it had expired
    wait_until(page, lambda: visit.closed_sockets == 1, "a closed connection")
    looks = page.evaluate("looks")
    wait_until(page, lambda: page.evaluate("looks") >= looks + 2, "waiting until the page is visible")
    assert len(visit.hellos) == 1
    page.evaluate("hide(false)")
    wait_until(page, lambda: len(visit.hellos) == 2, "a second connection")
    wait_for_tile(page, "Results", 2)


def test_an_unplugged_camera_ends_its_stream_with_an_error(visit: Visit, server: Server) -> None:
    page = visit.page
    page.add_init_script("""
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (constraints) => (window.opened = await open(constraints));
    """)
    page.reload()
    open_view(page, "Camera")
    page.get_by_role("button", name="Start").click()
    wait_for_tile(page, "Results", 2)
    page.evaluate("opened.getTracks().forEach((track) => track.stop())")
    expect(page.get_by_role("alert")).to_contain_text("The camera has ended")
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    wait_until(page, lambda: httpx.get(f"{server.url}/v1/streams").json() == [], "no streams")


def test_the_camera_retries_while_a_proxy_cannot_reach_the_server(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url) as visit:
        page = visit.page
        page.add_init_script("""
            window.away = true;
            window.WebSocket = class extends WebSocket {
                constructor(url, protocols) { super(away ? new URL('/v1/nothing', url) : url, protocols); }
            };
        """)
        page.reload()
        open_view(page, "Camera")
        expect(page.get_by_label("Model")).to_have_value("tiny")
        page.route("**/v1/models", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"))
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_text("It may be restarting. Trying again in ")).to_be_visible()
        page.evaluate("away = false")
        wait_for_tile(page, "Results", 2)


def test_without_an_encoder_the_camera_is_sent_as_jpeg(visit: Visit) -> None:
    page = visit.page
    page.add_init_script("delete window.VideoEncoder")
    page.reload()
    open_view(page, "Camera")
    page.get_by_role("button", name="Start").click()
    wait_for_tile(page, "Results", 2)
    assert json.loads(visit.hellos[0])["codec"] == "image"
