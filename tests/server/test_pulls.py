"""Streams that the server pulls over HTTP, on real servers. tests/e2e/test_cameras.py has those over RTSP."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest

from keywarp.protocol import Hello
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import B_FRAMES, FRAGMENTED, GREEN, NO_DELAY, encode, jpeg, moving, mpegts
from tests.server.routes.test_watch import watching

FRAMES = 40
FIRST_WAIT = 0.05  # seconds, before a pull is first tried again
TIMEOUT = 0.3  # seconds, of an impatient server
Answer = Callable[["Handler"], None]


class Asked(NamedTuple):
    """A request to the web server."""

    path: str
    headers: dict[str, str]
    at: float  # monotonic seconds


class Handler(BaseHTTPRequestHandler):
    """Responds to a path as the test says, and records the request."""

    protocol_version = "HTTP/1.1"
    server: "Shelf"

    def do_GET(self) -> None:
        self.server.asked.append(Asked(self.path, dict(self.headers), time.monotonic()))
        self.server.answers.get(self.path, missing)(self)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class Shelf(ThreadingHTTPServer):
    """A web server whose files tests put there."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[Asked] = []
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.over = threading.Event()

    def requests(self, path: str) -> list[Asked]:
        """Return the requests for a path."""
        return [asked for asked in self.asked if asked.path == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the other end has gone


def missing(handler: Handler) -> None:
    handler.send_error(404)


def file(data: bytes, *, ranges: bool = True, cut: int | None = None) -> Answer:
    """Respond with a file, or with its first `cut` bytes before the connection breaks."""

    def answer(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if ranges else None
        start = int(asked[1]) if asked else 0
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        if ranges:
            handler.send_header("Accept-Ranges", "bytes")
        handler.end_headers()
        handler.wfile.write(data[start:cut])
        handler.close_connection = cut is not None

    return answer


def redirect(to: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def camera(frames: int) -> Answer:
    """Respond as an IP camera does, with one JPEG after the other, and then hang up."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        handler.end_headers()
        for _ in range(frames):
            part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg(GREEN))
            handler.wfile.write(part + jpeg(GREEN) + b"\r\n")
        handler.close_connection = True

    return answer


def silent(until: threading.Event) -> Answer:
    """Respond without a body, and hang up after an event."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        until.wait(60)
        handler.close_connection = True

    return answer


@pytest.fixture(scope="module")
def shelf() -> Iterator[Shelf]:
    with Shelf() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.answers["/clip.ts"] = file(mpegts(FRAMES, B_FRAMES))
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture
def hang_up() -> Iterator[threading.Event]:
    """Give an event after which silent sources hang up. It is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(scope="module")
def patient_server(start_for_all: Starter) -> Running:
    return start_for_all(allow_pull=("127.0.0.1",), idle_timeout=60.0)


@pytest.fixture(scope="module")
def impatient_server(start_for_all: Starter) -> Running:
    return start_for_all(allow_pull=("127.0.0.1",), idle_timeout=60.0, pull_timeout=TIMEOUT)


@pytest.fixture
def puller(patient_server: Running, hang_up: threading.Event) -> Iterator[Running]:
    """Give a server that may pull, without a stream before and after."""
    yield patient_server
    hang_up.set()
    delete_streams(patient_server)


@pytest.fixture
def impatient(impatient_server: Running) -> Iterator[Running]:
    """Give a server like `puller` that doesn't wait long for a source."""
    yield impatient_server
    delete_streams(impatient_server)


def delete_streams(server: Running) -> None:
    for stream in server.service.streams:
        assert server.http.delete(f"/v1/streams/{stream.id}").is_success


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keywarp.server.pulls.FIRST_WAIT", FIRST_WAIT)


def pull(server: Running, source: str, **options: Any) -> str:
    created = server.http.post("/v1/streams", json={"source": source, **options})
    assert created.status_code == 201, created.text
    return str(created.json()["id"])


def info(server: Running, stream: str) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get(f"/v1/streams/{stream}").json()
    return found


def until(server: Running, stream: str, state: str) -> dict[str, Any]:
    """Wait until a stream has a state, and return its description."""
    found: list[dict[str, Any]] = []

    def has_state() -> bool:
        found.append(info(server, stream))
        return bool(found[-1]["state"] == state)

    eventually(has_state)
    return found[-1]


@pytest.mark.parametrize(
    ("form", "muxing", "ranges"),
    [("mpegts", {}, False), ("mp4", FRAGMENTED, False), ("mpegts", {}, True), ("mp4", {}, True)],
)
def test_a_file_is_pulled_to_its_end(
    puller: Running, shelf: Shelf, form: str, muxing: dict[str, str], ranges: bool
) -> None:
    shelf.answers["/file"] = file(encode(moving(FRAMES), form, B_FRAMES, "libx264", muxing)[0], ranges=ranges)
    stream = pull(puller, f"{shelf.address}/file", interval=10)
    ended = until(puller, stream, "ended")
    assert (ended["frames"], ended["key_frames"], ended["errors"], ended["dropped"]) == (FRAMES, FRAMES // 10, 0, 0)
    assert (ended["mode"], ended["reconnects"], ended.get("problem")) == ("lossless", 0, None)


def test_a_playlist_is_pulled_with_its_segments(puller: Running, shelf: Shelf) -> None:
    shelf.answers["/live/a.ts"] = shelf.answers["/clip.ts"]
    shelf.answers["/live/list.m3u8"] = playlist("a.ts")
    stream = pull(puller, f"{shelf.address}/live/list.m3u8")
    assert until(puller, stream, "ended")["frames"] == FRAMES


def playlist(segment: str) -> Answer:
    lines = "#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:1.6,", segment, "#EXT-X-ENDLIST"
    return file("\n".join(lines).encode())


def test_a_camera_that_hangs_up_is_reconnected_and_begins_with_a_key_frame(puller: Running, shelf: Shelf) -> None:
    shelf.answers["/camera"] = camera(5)
    stream = pull(puller, f"{shelf.address}/camera", interval=10)
    assert until(puller, stream, "retrying")["problem"] == "the source ended"
    before = pull_failures(puller)
    eventually(lambda: info(puller, stream)["key_frames"] >= 3)
    assert info(puller, stream)["reconnects"] >= 2
    eventually(lambda: pull_failures(puller) > before)
    with watching(puller, stream) as messages:
        reasons = [getattr(next(messages), "reason", None) for _ in range(12)]
    assert reasons.count("gap") >= 2
    puller.http.delete(f"/v1/streams/{stream}")
    eventually(lambda: not puller.tasks("Pull", "Pipeline"))


def pull_failures(server: Running) -> float:
    [line] = [
        line
        for line in server.http.get("/metrics").text.splitlines()
        if line.startswith("keywarp_pull_failures_total ")
    ]
    return float(line.split()[1])


def test_a_source_that_does_not_exist_is_tried_until_it_does(puller: Running, shelf: Shelf) -> None:
    shelf.answers.pop("/late", None)
    stream = pull(puller, f"{shelf.address}/late")
    assert "404" in until(puller, stream, "retrying")["problem"]
    shelf.answers["/late"] = shelf.answers["/clip.ts"]
    assert until(puller, stream, "ended")["reconnects"] >= 1


def test_a_file_that_breaks_off_has_failed_and_is_not_pulled_again(puller: Running, shelf: Shelf) -> None:
    noise = [*np.random.default_rng(0).integers(0, 256, (30, 320, 640, 3), np.uint8)]
    data = encode(noise, "mpegts", NO_DELAY | {"crf": "20"})[0]
    shelf.answers["/broken"] = file(data, cut=len(data) * 3 // 4)
    stream = pull(puller, f"{shelf.address}/broken")
    failed = until(puller, stream, "failed")
    assert "broke" in failed["problem"]
    assert failed["reconnects"] == 0
    assert 10 < failed["frames"] < 30


def test_a_source_that_sends_nothing_times_out(impatient: Running, shelf: Shelf, hang_up: threading.Event) -> None:
    shelf.answers["/silent"] = silent(hang_up)
    stream = pull(impatient, f"{shelf.address}/silent")
    assert "timed out" in until(impatient, stream, "retrying")["problem"]


def test_a_source_that_is_no_video_is_reported(puller: Running, shelf: Shelf) -> None:
    shelf.answers["/text"] = file(b"hello " * 1000)
    stream = pull(puller, f"{shelf.address}/text")
    assert "Invalid data" in until(puller, stream, "retrying")["problem"]


def test_pause_disconnects_from_the_source_and_resume_connects_again(puller: Running, shelf: Shelf) -> None:
    shelf.answers["/camera"] = shelf.answers["/other"] = camera(3)
    stream = pull(puller, f"{shelf.address}/camera")
    until(puller, stream, "running")
    assert puller.http.post(f"/v1/streams/{stream}/pause").is_success
    until(puller, stream, "paused")
    asked, frames = len(shelf.requests("/camera")), info(puller, stream)["frames"]
    other = pull(puller, f"{shelf.address}/other")
    eventually(lambda: info(puller, other)["reconnects"] >= 2)  # meanwhile the paused one could have, too
    assert (len(shelf.requests("/camera")), info(puller, stream)["frames"]) == (asked, frames)
    assert info(puller, stream)["state"] == "paused"
    assert puller.http.post(f"/v1/streams/{stream}/resume").is_success
    eventually(lambda: info(puller, stream)["frames"] > frames)


def test_only_pulled_streams_can_be_paused_and_only_others_can_be_fed(
    puller: Running, shelf: Shelf, hang_up: threading.Event
) -> None:
    puller.http.post("/v1/streams", json={"id": "fed"})
    assert puller.http.post("/v1/streams/fed/pause").status_code == 409
    assert puller.http.post("/v1/streams/nobody/pause").status_code == 404
    shelf.answers["/silent"] = silent(hang_up)
    stream = pull(puller, f"{shelf.address}/silent")
    assert puller.frame(stream).status_code == 409
    with puller.connect(stream) as talk:
        talk.send(Hello())
        assert talk.close_code() == 4409


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("http://10.1.2.3/x", 403),
        ("http://169.254.169.254/latest/meta-data", 403),
        ("file:///etc/passwd", 400),
        ("http:///x", 400),
        ("http://127.0.0.1:99999/x", 400),
        ("http://127.0.0.1/x\r\nX: y", 400),
        ("concat:http://127.0.0.1/x", 400),
        ("rtsp://127.0.0.1/" + "x" * 2100, 422),
    ],
)
def test_a_source_that_must_not_be_pulled_is_refused_at_once(puller: Running, source: str, status: int) -> None:
    assert puller.http.post("/v1/streams", json={"source": source}).status_code == status
    assert puller.http.get("/v1/streams").json() == []


def test_nothing_is_pulled_by_default(server: Running, shelf: Shelf) -> None:
    refused = server.http.post("/v1/streams", json={"source": f"{shelf.address}/clip.ts"})
    assert refused.status_code == 403
    assert "--allow-pull" in refused.json()["detail"]


@pytest.mark.parametrize("way", ["redirect", "playlist"])
@pytest.mark.parametrize("to", ["http://localhost.:{port}/secret", "http://[::1]:{port}/secret", "file:///etc/passwd"])
def test_neither_redirects_nor_playlists_lead_to_hosts_that_are_not_allowed(
    start: Starter, shelf: Shelf, way: str, to: str
) -> None:
    server = start(allow_pull=("127.0.0.2",))
    to = to.format(port=shelf.server_port)
    shelf.answers["/trap.m3u8"] = redirect(to) if way == "redirect" else playlist(to)
    shelf.asked.clear()
    stream = pull(server, f"http://127.0.0.2:{shelf.server_port}/trap.m3u8")
    assert until(server, stream, "retrying")["problem"]
    assert {asked.path for asked in shelf.asked} == {"/trap.m3u8"}


OPENING = {
    "concat": b"ffconcat version 1.0\nfile secret.mp4\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\n"
    b"a=rtpmap:96 H264/90000\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
    b'<Representation id="1"><BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
}


@pytest.mark.parametrize("kind", OPENING)
def test_formats_that_open_further_files_are_refused(puller: Running, shelf: Shelf, kind: str) -> None:
    shelf.answers["/trap"] = file(OPENING[kind])
    shelf.asked.clear()
    stream = pull(puller, f"{shelf.address}/trap")
    assert until(puller, stream, "retrying")["problem"]
    assert {asked.path for asked in shelf.asked} == {"/trap"}


def test_a_pattern_in_a_url_does_not_stand_for_several_files(puller: Running, shelf: Shelf) -> None:
    shelf.asked.clear()
    stream = pull(puller, f"{shelf.address}/picture%d.jpg")
    assert until(puller, stream, "retrying")["problem"]
    assert shelf.asked == []  # FFmpeg would ask for /picture0.jpg to /picture4.jpg


def drip(handler: Handler) -> None:
    """Send bytes that are no video, one by one."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while not handler.server.over.wait(TIMEOUT / 10):
            handler.wfile.write(b"\0")


def test_a_source_that_drips_can_be_paused_and_deleted(puller: Running, shelf: Shelf) -> None:
    shelf.answers["/drip"] = drip
    shelf.asked.clear()
    stream = pull(puller, f"{shelf.address}/drip")
    eventually(lambda: len(shelf.requests("/drip")) == 1)
    assert puller.http.post(f"/v1/streams/{stream}/pause").is_success
    until(puller, stream, "paused")
    puller.http.post(f"/v1/streams/{stream}/resume")
    eventually(lambda: len(shelf.requests("/drip")) == 2)
    assert puller.tasks("Pull.run", "Pipeline.feed")
    assert puller.http.delete(f"/v1/streams/{stream}").is_success
    eventually(lambda: not puller.tasks("Pull.", "Pipeline."))


def test_a_source_that_only_drips_times_out(impatient: Running, shelf: Shelf) -> None:
    shelf.answers["/drip"] = drip
    stream = pull(impatient, f"{shelf.address}/drip")
    assert "no frame came for 0.9 s" in until(impatient, stream, "retrying")["problem"]


def test_a_source_without_a_frame_is_never_running_and_is_tried_less_and_less_often(
    puller: Running, shelf: Shelf
) -> None:
    data = encode(moving(3), "mpegts", NO_DELAY)[0]
    shelf.answers["/empty"] = file(data[: 188 * 4])
    shelf.asked.clear()
    stream = pull(puller, f"{shelf.address}/empty")
    assert until(puller, stream, "retrying")["frames"] == 0
    eventually(lambda: len(shelf.requests("/empty")) == 5)
    times = [asked.at for asked in shelf.requests("/empty")]
    for number, (earlier, later) in enumerate(pairwise(times)):
        assert later - earlier > 0.7 * 2**number * FIRST_WAIT  # waits differ by up to a quarter
    assert info(puller, stream)["frames"] == 0


@pytest.mark.parametrize("to", ["http://[x/", "http://127.0.0.1:99999/", "http://127.0.0.1/vid\u00e9o"])
def test_a_redirect_to_something_that_is_no_url_is_tried_again(puller: Running, shelf: Shelf, to: str) -> None:
    shelf.answers["/odd"] = redirect(to)
    stream = pull(puller, f"{shelf.address}/odd")
    assert "isn't a URL" in until(puller, stream, "retrying")["problem"]


def test_a_wrong_password_is_not_shown(puller: Running) -> None:
    refused = puller.http.post("/v1/streams", json={"source": "rtsp://admin:hunter/2222@10.0.0.5/s"})
    assert refused.status_code == 400
    assert "isn't a URL" in refused.json()["detail"]
    for part in ("admin", "hunter", "2222"):
        assert part not in refused.text


def test_credentials_are_sent_but_never_shown(puller: Running, shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shelf.asked.clear()
    stream = pull(puller, f"{shelf.address.replace('//', '//me:se%20cret@')}/nothing?token=secret")
    shown = until(puller, stream, "retrying")
    assert shown["source"] == f"{shelf.address}/nothing"
    assert shelf.asked[0].headers["User-Agent"] == "keywarp"
    assert shelf.asked[0].headers["Authorization"] == "Basic bWU6c2UgY3JldA=="
    assert f"{shelf.address}/nothing: retrying" in caplog.text
    assert "cret" not in caplog.text + str(shown)


def test_a_server_that_stops_disconnects_from_its_sources(start: Starter, shelf: Shelf) -> None:
    server = start(allow_pull=("127.0.0.0/8",))
    shelf.answers["/camera"] = camera(3)
    before = pull_threads()
    stream = pull(server, f"{shelf.address}/camera")
    until(server, stream, "running")
    assert pull_threads() == before + 1
    server.stop()
    eventually(lambda: pull_threads() == before)


def pull_threads() -> int:
    return sum(thread.name.startswith("keywarp-pull") for thread in threading.enumerate())


def test_sources_that_are_waited_for_do_not_hold_up_other_streams(
    puller: Running, shelf: Shelf, hang_up: threading.Event
) -> None:
    shelf.answers["/silent"] = silent(hang_up)
    shelf.asked.clear()
    waiting = [pull(puller, f"{shelf.address}/silent") for _ in range(8)]
    eventually(lambda: len(shelf.requests("/silent")) == 8)
    with puller.connect("fed", Hello()) as talk:
        responses, done = talk.stream([(i, jpeg()) for i in range(20)])
    assert [(response.type, response.id) for response in responses] == [("result", i) for i in range(20)]
    assert done.frames == 20
    assert [info(puller, stream)["state"] for stream in waiting] == ["connecting"] * 8
