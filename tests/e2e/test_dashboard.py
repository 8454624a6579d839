"""The dashboard in a real Chromium, on a real server with a tiny model."""

import base64
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from keywarp.client import Client
from keywarp.server.security.keys import add_key, new_key
from tests.e2e.browsing import PATIENCE, Visit, chromium, visiting
from tests.e2e.running import ROOT, Server, serving, street_video
from tests.server.media import GREEN, RED, jpeg, saved
from tests.server.test_pulls import Handler, Shelf
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("models") / "tiny").path.parent


@pytest.fixture(scope="module")
def server(browser: Browser, models: Path) -> Iterator[Server]:  # noqa: ARG001 - no server without a browser
    with serving("--allow-pull", "127.0.0.1", models=models) as running:
        yield running


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visit]:
    with visiting(browser, server.url) as visit:
        yield visit
        assert visit.complaints == []
        assert visit.hosts == {server.url.removeprefix("http://")}


@contextmanager
def feeding(server: Server, stream: str) -> Iterator[None]:
    """Feed a stream by the Python client, like a camera."""
    over = threading.Event()

    def camera() -> Iterator[NDArray[np.uint8]]:
        for number in itertools.count():
            if over.wait(0.05):
                return
            yield np.full((64, 128, 3), (GREEN, (number % 256, 20, 20))[number % 2], np.uint8)

    def feed() -> None:
        with Client(server.url) as client, client.stream(camera(), stream_id=stream, interval=5) as results:
            for _ in results:
                pass

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def camera(handler: Handler) -> None:
    """An IP camera that goes on until its server is closed."""
    handler.send_response(200)
    handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
    handler.end_headers()
    while not handler.server.over.wait(0.05):
        picture = jpeg(GREEN)
        handler.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture))
        handler.wfile.write(picture + b"\r\n")


@contextmanager
def ip_camera() -> Iterator[str]:
    """The address of one."""
    with Shelf() as shelf:
        shelf.answers["/video"] = camera
        thread = threading.Thread(target=shelf.serve_forever)
        thread.start()
        try:
            yield f"{shelf.address}/video"
        finally:
            shelf.over.set()
            shelf.shutdown()
            thread.join()


def figure(page: Page, name: str) -> Locator:
    """A figure beside the picture."""
    return page.locator(".view .tile", has=page.get_by_text(name, exact=True)).locator("dd")


def open_view(page: Page, name: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_focused()


def eventually(page: Page, condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds; `wait_for_function` can't, since the page's policy forbids `eval`."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline, f"never {what}: {page.locator('main').inner_text()}"
        page.wait_for_timeout(50)


def await_figure(page: Page, name: str, least: float) -> None:
    def reached() -> bool:
        said = re.match(r"[\d.,]+", figure(page, name).inner_text())
        return said is not None and float(said[0].replace(",", "")) >= least

    eventually(page, reached, f"{name} >= {least}")


def await_pictures(page: Page, least: int) -> None:
    canvas = page.locator(".stage canvas")
    eventually(page, lambda: int(canvas.get_attribute("data-pictures") or 0) >= least, f"{least} pictures")


def test_the_api_is_described_without_the_internet(visit: Visit, server: Server) -> None:
    page = visit.page
    page.goto(f"{server.url}/docs")
    expect(page.get_by_text("/v1/streams/{stream_id}/frames").first).to_be_visible()
    page.get_by_text("/healthz").first.click()
    page.get_by_role("button", name="TRY").first.click()
    expect(page.get_by_text('"ok"').first).to_be_visible()


def test_every_view_loads_without_errors(visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_text("keywarp stream street.mp4")).to_be_visible()
    expect(page.locator("#server")).to_have_text("Live")
    for name in ("Camera", "Video", "Models", "Streams"):
        open_view(page, name)
    open_view(page, "Models")
    expect(page.get_by_role("heading", name="tiny")).to_be_visible()


def test_a_stream_that_a_client_feeds_can_be_watched(visit: Visit, server: Server) -> None:
    page = visit.page
    with feeding(server, "gate"):
        row = page.get_by_role("row", name="gate")
        expect(row.get_by_text("Running")).to_be_visible()
        expect(row.get_by_role("cell").nth(2)).to_have_text(re.compile(r"[1-9]\d*\.\d"))
        row.get_by_role("link", name="gate").click()
        await_pictures(page, 3)
        await_figure(page, "Frames/s", 1)
        frames = figure(page, "Frames").inner_text()
        expect(figure(page, "Frames")).not_to_have_text(frames)
        expect(figure(page, "Key frames")).to_have_text(re.compile("^(19|2[0-5])%$"))  # one in five
        expect(page.get_by_role("group", name="What was found")).to_have_text(re.compile("green|red"))
    expect(page.get_by_text("This stream")).to_be_visible()
    with feeding(server, "gate"):
        expect(page.locator(".badge")).to_have_text("Running")  # it is shown again
        await_pictures(page, 1)
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


def test_a_camera_is_pulled_paused_resumed_and_let_go(visit: Visit, server: Server) -> None:
    page = visit.page
    with ip_camera() as address:
        page.get_by_role("button", name="Pull a URL").click()
        page.get_by_label("Address").fill(address)
        page.get_by_label("Name").fill("yard")
        page.get_by_label("Key interval").fill("7")
        page.get_by_role("dialog").get_by_role("button", name="Start").click()
        expect(page.get_by_role("heading", name="yard")).to_be_visible()
        await_pictures(page, 2)
        expect(page.get_by_role("definition").get_by_text(address)).to_be_visible()
        page.get_by_role("button", name="Pause").click()
        expect(page.locator(".badge")).to_have_text("Paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.locator(".badge")).to_have_text("Running")
        [info] = httpx.get(f"{server.url}/v1/streams").json()
        assert (info["id"], info["interval"], info["mode"]) == ("yard", 7, "latest")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("No streams yet")).to_be_visible()


def test_what_may_not_be_pulled_is_refused_in_words(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url) as visit:
        page = visit.page
        page.get_by_role("button", name="Pull a URL").click()
        page.get_by_label("Address").fill("rtsp://192.0.2.7/1")
        page.get_by_role("dialog").get_by_role("button", name="Start").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Not allowed: ")
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Pull a URL")).to_be_focused()


@pytest.mark.parametrize(("codec", "hello"), [("Automatic", "h264"), ("H.264", "h264"), ("JPEG", "image")])
def test_the_camera_is_sent_and_its_results_are_drawn(visit: Visit, codec: str, hello: str) -> None:
    page = visit.page
    open_view(page, "Camera")
    page.get_by_label("Sent as").select_option(codec)
    page.get_by_label("If the server is busy").select_option("Every frame")
    page.get_by_role("button", name="Start").click()
    await_figure(page, "Results", 12)
    await_pictures(page, 5)
    said: dict[str, Any] = json.loads(visit.hellos[0])
    assert (said["codec"], said["mode"]) == (hello, "lossless")
    expect(page.get_by_role("group", name="What was found")).to_contain_text("green")  # the fake camera's colour
    assert figure(page, "Errors").inner_text() == "0"
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("The camera is off")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_focused()


def test_the_camera_goes_on_when_its_page_is_seen_again_until_it_is_unplugged(visit: Visit, server: Server) -> None:
    page = visit.page
    page.add_init_script("""
        let hidden = false;
        Object.defineProperty(document, 'hidden', { get: () => hidden });
        window.hide = (now) => { hidden = now; document.dispatchEvent(new Event('visibilitychange')); };
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => (window.opened = await open(wanted));
    """)
    page.reload()
    open_view(page, "Camera")
    page.get_by_role("button", name="Start").click()
    await_figure(page, "Results", 2)
    page.evaluate("hide(true)")
    [stream] = httpx.get(f"{server.url}/v1/streams").json()
    httpx.delete(f"{server.url}/v1/streams/{stream['id']}").raise_for_status()  # as when it expires
    page.wait_for_timeout(1000)
    assert len(visit.hellos) == 1
    page.evaluate("hide(false)")
    eventually(page, lambda: len(visit.hellos) == 2, "a second connection")
    await_figure(page, "Results", 2)
    page.evaluate("opened.getTracks().forEach((track) => track.stop())")
    expect(page.get_by_role("alert")).to_contain_text("The camera has ended")
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    eventually(page, lambda: httpx.get(f"{server.url}/v1/streams").json() == [], "no streams")


def test_the_camera_waits_where_a_proxy_does_not_reach_the_server(browser: Browser, server: Server) -> None:
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
        await_figure(page, "Results", 2)


def test_without_an_encoder_the_camera_is_sent_as_jpeg(visit: Visit) -> None:
    page = visit.page
    page.add_init_script("delete window.VideoEncoder")
    page.reload()
    open_view(page, "Camera")
    page.get_by_role("button", name="Start").click()
    await_figure(page, "Results", 2)
    assert json.loads(visit.hellos[0])["codec"] == "image"


def test_masks_and_boxes_have_their_classes_colours(visit: Visit) -> None:
    labels = np.array([[0, 1], [2, 1]], np.uint8).repeat(40, axis=0).repeat(40, axis=1)
    png = base64.b64encode(saved(Image.fromarray(labels), "PNG")).decode()
    classes = [{"id": i, "name": f"class {i}", "color": color} for i, color in enumerate([(0, 0, 0), RED, GREEN])]
    frame = {"width": 80, "height": 80, "kind": "propagated", "key_age": 3}
    masks = frame | {"segmentation": {"width": 80, "height": 80, "labels_png": png, "regions": []}}
    found = {"class_id": 2, "name": "class 2", "confidence": 0.9, "xyxy": [10, 40, 70, 75]}
    doubtful = {"class_id": 1, "name": "class 1", "confidence": 0.4, "xyxy": [0, 30, 79, 79]}
    draw = """async ([classes, result]) => {
        const { Overlay } = await import('/dashboard/overlay.js');
        const canvas = new OffscreenCanvas(80, 80);
        const pen = canvas.getContext('2d', { alpha: false });
        const overlay = new Overlay(classes);
        overlay.draw(pen, await overlay.prepare(result));
        return [...pen.getImageData(0, 0, 80, 80).data];
    }"""
    image = np.reshape(visit.page.evaluate(draw, [classes, masks]), (80, 80, 4))[..., :3]
    np.testing.assert_array_equal(image[35, 5], (0, 0, 0))
    np.testing.assert_allclose(image[60, 60], np.array(RED) / 2, atol=2)
    np.testing.assert_allclose(image[60, 20], np.array(GREEN) / 2, atol=2)
    boxes = frame | {"detections": [found, doubtful]}
    image = np.reshape(visit.page.evaluate(draw, [classes, boxes]), (80, 80, 4))[..., :3]
    np.testing.assert_array_equal(image[60, 11], GREEN)  # the left side of the box
    np.testing.assert_array_equal(image[74, 40], GREEN)  # its bottom
    np.testing.assert_array_equal(image[60, 40], (0, 0, 0))
    np.testing.assert_array_equal(image[78, 79], (0, 0, 0))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (429, "The server is full: the server has its 64 streams."),
        (503, "Not ready: the server has its 64 streams. Try again in 5 s."),
        (403, "Not allowed: the server has its 64 streams."),
    ],
)
def test_refusals_are_told_in_words(visit: Visit, status: int, words: str) -> None:
    tell = """async (status) => {
        const { inWords } = await import('/dashboard/server.js');
        const { ApiError } = await import('/dashboard/vendor/keywarp.js');
        return inWords(new ApiError({ title: '', status, detail: 'the server has its 64 streams' }, 5));
    }"""
    assert visit.page.evaluate(tell, status) == words


def test_the_example_of_the_javascript_client_runs(visit: Visit, server: Server) -> None:
    readme = (ROOT / "clients" / "web" / "README.md").read_text()
    [code] = re.findall(r"^```js\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    for said, here in (
        ("./keywarp.js", "/dashboard/vendor/keywarp.js"),
        ("https://keywarp.example", server.url),
        ("street", "tiny"),
    ):
        assert code.count(said) == 1
        code = code.replace(said, here)
    page = visit.page
    printed: list[str] = []
    page.on("console", lambda said: printed.append(said.text))
    page.route("**/dashboard/example.js", lambda route: route.fulfill(body=code, content_type="text/javascript"))
    page.evaluate("() => { import('/dashboard/example.js') }")
    eventually(
        page, lambda: any(re.match(r"\d+ propagated \d .*green", line) for line in printed), f"printed: {printed}"
    )


def test_a_video_is_sent_and_played_with_its_results(visit: Visit) -> None:
    page = visit.page
    open_view(page, "Video")
    page.get_by_label("Choose a video").set_input_files(street_video())
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Done: 250 results, 25 of them key frames")).to_be_visible()
    await_pictures(page, 5)
    with page.expect_download() as saving:
        page.get_by_role("button", name="Results").click()
    lines = [json.loads(line) for line in Path(saving.value.path()).read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(250))
    assert saving.value.suggested_filename == "bikes.mp4.ndjson"


def test_what_is_no_video_is_refused_in_words(visit: Visit, tmp_path: Path) -> None:
    text, broken = tmp_path / "notes.txt", tmp_path / "broken.mp4"
    text.write_text("this is no video")
    broken.write_text("this is no video")
    page = visit.page
    open_view(page, "Video")
    for file, words in ((text, "This isn't a video"), (broken, "Not an MP4")):
        page.get_by_label("Choose a video").set_input_files(file)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("button", name="Start")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(browser: Browser, server: Server, dark: bool) -> None:
    with visiting(browser, server.url, dark=dark) as visit, feeding(server, "gate"):
        page = visit.page
        expect(page.get_by_role("link", name="gate")).to_be_visible()
        check(page, "streams")
        page.get_by_role("button", name="Pull a URL").click()
        expect(page.get_by_label("Model")).to_have_value("tiny")
        check(page, "pull")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("link", name="gate").click()
        await_pictures(page, 1)
        check(page, "stream")
        for name in ("Camera", "Video", "Models"):
            open_view(page, name)
            check(page, name)


def check(page: Page, where: str) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, f"{where}: {found.generate_report()}"


def test_the_theme_can_be_chosen_and_is_remembered(visit: Visit) -> None:
    page = visit.page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Change to light").click()
    page.get_by_role("button", name="Change to dark").click()
    assert page.evaluate(ground) != light
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(ground) != light


def test_a_key_is_asked_for_and_works(browser: Browser, models: Path, tmp_path: Path) -> None:
    secret, key = new_key("gate", "stream,metrics")
    add_key(tmp_path / "keys.txt", key)
    with (
        serving("--keys", str(tmp_path / "keys.txt"), models=models) as server,
        visiting(browser, server.url) as visit,
    ):
        page = visit.page
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("Key", exact=True).fill("kw_wrong")
        dialog.get_by_role("button", name="Go on").click()
        expect(dialog.get_by_role("alert")).to_contain_text("isn't an API key")
        check(page, "key")
        for _ in range(4):
            page.keyboard.press("Escape")
        for view in ("streams/gate", "streams"):  # as by Back and Forward
            page.evaluate(f"location.hash = '#/{view}'")
            page.wait_for_timeout(100)
        dialog.get_by_label("Key", exact=True).fill(secret)
        dialog.get_by_role("button", name="Go on").click()
        expect(page.get_by_text("No streams yet")).to_be_visible()
        open_view(page, "Camera")
        page.get_by_role("button", name="Start").click()
        await_figure(page, "Results", 2)
        page.reload()
        open_view(page, "Streams")
        expect(page.locator("#server")).to_have_text("Live")


def test_the_page_finds_its_server_again(browser: Browser, models: Path) -> None:
    with serving(models=models) as server, visiting(browser, server.url) as visit:
        page = visit.page
        expect(page.locator("#server")).to_have_text("Live")
        server.process.terminate()
        expect(page.locator("#server")).to_have_text("No answer, trying again")
        port = server.url.rpartition(":")[2]
        with serving("--port", port, models=models):
            expect(page.locator("#server")).to_have_text("Live")


def test_a_server_that_takes_requests_and_never_answers_is_noticed(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url) as visit:
        page = visit.page
        page.add_init_script("""
            const timeout = AbortSignal.timeout.bind(AbortSignal);
            AbortSignal.timeout = () => timeout(1000);
        """)
        page.reload()
        expect(page.locator("#server")).to_have_text("Live")
        page.route("**/v1/streams", lambda _: None)
        expect(page.locator("#server")).to_have_text("No answer, trying again")
        page.unroute("**/v1/streams")
        expect(page.locator("#server")).to_have_text("Live")


def test_without_a_clipboard_the_command_is_selected(visit: Visit, server: Server) -> None:
    page = visit.page
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.reload()
    page.get_by_role("button", name="Copy the command").click()
    expect(page.locator("#toast")).to_contain_text("the command is selected")
    assert page.evaluate("getSelection().toString()") == f"keywarp stream street.mp4 --server {server.url}"


def test_an_address_that_is_not_encoded_is_refused_in_words(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url) as visit:
        page = visit.page
        expect(page.get_by_text("No streams yet")).to_be_visible()
        page.evaluate("location.hash = '#/streams/100%'")
        expect(page.get_by_role("alert")).to_contain_text("URI malformed")
        open_view(page, "Models")


@pytest.mark.parametrize("name", ["constructor", "__proto__", "nothing"])
def test_an_address_of_no_view_shows_the_streams(visit: Visit, server: Server, name: str) -> None:
    visit.page.goto(f"{server.url}/#/{name}")
    expect(visit.page.get_by_role("heading", level=1, name="Streams")).to_be_visible()
    expect(visit.page.get_by_role("alert")).to_have_count(0)


def test_going_back_closes_the_dialog(visit: Visit) -> None:
    page = visit.page
    open_view(page, "Models")
    open_view(page, "Streams")
    page.get_by_role("button", name="Pull a URL").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", level=1, name="Models")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
