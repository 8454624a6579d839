"""Streams that the server pulls over HTTP, on real servers. tests/e2e/test_cameras.py has those over RTSP."""

import hashlib
import io
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keywarp.protocol import Hello
from keywarp.server.errors import BadVideoError, PullError, SourceForbiddenError
from keywarp.server.pulls import next_wait
from keywarp.videos import open_container
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import B_FRAMES, FRAGMENTED, NO_DELAY, encode, jpeg, moving, mpegts, pieces
from tests.server.routes.test_watch import watching
from tests.server.source_server import (
    Responder,
    SourceHandler,
    SourceServer,
    camera,
    file,
    redirect,
    silent,
)
from tests.videos.films import B_FRAMES as FILM_B_FRAMES
from tests.videos.films import TS_PACKET, film, saved, textured, video_packets, without
from tests.videos.reading import Seen

FRAMES = 40
FIRST_WAIT = 0.05  # seconds, before a pull is first tried again
TIMEOUT = 0.3  # seconds, of an impatient server


@pytest.fixture(scope="module")
def web() -> Iterator[SourceServer]:
    with SourceServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.responders["/clip.ts"] = file(mpegts(FRAMES, B_FRAMES))
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


def refuse(status: int) -> Responder:
    def respond(handler: SourceHandler) -> None:
        handler.send_error(status)

    return respond


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
    puller: Running, web: SourceServer, form: str, muxing: dict[str, str], ranges: bool
) -> None:
    web.responders["/file"] = file(encode(moving(FRAMES), form, B_FRAMES, "libx264", muxing)[0], ranges=ranges)
    stream = pull(puller, f"{web.address}/file", interval=10)
    ended = until(puller, stream, "ended")
    assert (ended["frames"], ended["key_frames"], ended["errors"], ended["dropped"]) == (FRAMES, FRAMES // 10, 0, 0)
    assert (ended["mode"], ended["reconnects"], ended.get("problem")) == ("lossless", 0, None)


def test_a_playlist_is_pulled_with_its_segments(puller: Running, web: SourceServer) -> None:
    web.responders["/live/a.ts"] = web.responders["/clip.ts"]
    web.responders["/live/list.m3u8"] = playlist("a.ts")
    stream = pull(puller, f"{web.address}/live/list.m3u8")
    assert until(puller, stream, "ended")["frames"] == FRAMES


def test_packets_of_a_segment_that_come_twice_are_no_damage(puller: Running, web: SourceServer) -> None:
    twice = b"".join(packet * 2 for packet in pieces(mpegts(FRAMES, B_FRAMES), TS_PACKET))
    web.responders["/live/twice.ts"] = file(twice)
    web.responders["/live/twice.m3u8"] = playlist("twice.ts")
    ended = until(puller, pull(puller, f"{web.address}/live/twice.m3u8"), "ended")
    assert (ended["frames"], ended["errors"]) == (FRAMES, 0)


def playlist(segment: str) -> Responder:
    lines = "#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:1.6,", segment, "#EXT-X-ENDLIST"
    return file("\n".join(lines).encode())


def test_a_camera_that_hangs_up_is_reconnected_and_begins_with_a_key_frame(puller: Running, web: SourceServer) -> None:
    web.responders["/camera"] = camera(5)
    stream = pull(puller, f"{web.address}/camera", interval=10)
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


def test_a_source_that_does_not_exist_is_tried_until_it_does(puller: Running, web: SourceServer) -> None:
    web.responders.pop("/late", None)
    stream = pull(puller, f"{web.address}/late")
    assert "404" in until(puller, stream, "retrying")["problem"]
    web.responders["/late"] = web.responders["/clip.ts"]
    assert until(puller, stream, "ended")["reconnects"] >= 1


def test_a_file_that_breaks_off_has_failed_and_is_not_pulled_again(puller: Running, web: SourceServer) -> None:
    noise = [*np.random.default_rng(0).integers(0, 256, (30, 320, 640, 3), np.uint8)]
    data = encode(noise, "mpegts", NO_DELAY | {"crf": "20"})[0]
    web.responders["/broken"] = file(data, cut=len(data) * 3 // 4)
    stream = pull(puller, f"{web.address}/broken")
    failed = until(puller, stream, "failed")
    assert "broke" in failed["problem"]
    assert failed["reconnects"] == 0
    assert 10 < failed["frames"] < 30


# What is missing right before a key frame looks to FFmpeg like recordings that were joined.
@pytest.mark.parametrize("ranges", [False, True])
def test_what_is_lost_before_a_key_frame_and_what_comes_twice_is_known_of_a_pulled_file_as_of_others(
    puller: Running, web: SourceServer, tmp_path: Path, ranges: bool
) -> None:
    data = film("mpegts", [textured(number) for number in range(24)], options=FILM_B_FRAMES)
    with open_container(io.BytesIO(data)) as container:
        keys = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe and packet.pos]
    places = video_packets(data)
    last = places[places.index(keys[1] // TS_PACKET) - 1]
    twice = b"".join(packet * 2 for packet in pieces(data, TS_PACKET))
    for name, content in (("lost", without(data, last, 1)), ("twice", twice), ("joined", data * 2)):
        local = Seen(saved(tmp_path / "v.ts", content))
        assert bool(local.places) == (name == "lost")
        web.responders[f"/{name}.ts"] = file(content, ranges=ranges)
        ended = until(puller, pull(puller, f"{web.address}/{name}.ts"), "ended")
        assert (name, ended["frames"], ended["errors"]) == (name, len(local.pictures), len(local.places))


def test_a_source_that_sends_nothing_times_out(impatient: Running, web: SourceServer, hang_up: threading.Event) -> None:
    web.responders["/silent"] = silent(hang_up)
    stream = pull(impatient, f"{web.address}/silent")
    assert "timed out" in until(impatient, stream, "retrying")["problem"]


def test_a_source_that_is_no_video_is_reported(puller: Running, web: SourceServer) -> None:
    web.responders["/text"] = file(b"hello " * 1000)
    stream = pull(puller, f"{web.address}/text")
    assert "is text, not a video" in until(puller, stream, "retrying")["problem"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (file(b"<!doctype html><title>Log in</title>"), "is an HTML page"),
        (file(b'{"error": "no such camera"}'), "is JSON"),
        (refuse(403), "status 403 (Forbidden)"),
        (refuse(404), "status 404 (Not Found)"),
        (redirect("http://192.0.2.1/"), "may not pull from '192.0.2.1'"),
    ],
)
def test_a_source_that_somebody_has_to_mend_is_tried_less_and_less_often_and_never_silently(
    puller: Running,
    web: SourceServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: Responder,
    said: str,
) -> None:
    monkeypatch.setattr("keywarp.server.pulls.LONGEST_WAIT", FIRST_WAIT)
    web.received.clear()
    web.responders["/wrong"] = answer
    stream = pull(puller, f"{web.address}/wrong")
    with caplog.at_level("INFO", "keywarp.server.pulls"):
        assert said in until(puller, stream, "retrying")["problem"]
        eventually(lambda: len(web.requests("/wrong")) == 5)
        web.responders["/wrong"] = web.responders["/clip.ts"]
        seen: dict[str, Any] = {}

        def has_ended() -> bool:
            found = info(puller, stream)
            seen[found["state"]] = found.get("problem")
            return bool(found["state"] == "ended")

        eventually(has_ended)
    assert said in str(seen["retrying"])
    assert seen["ended"] is None
    times = [asked.at for asked in web.requests("/wrong")]
    for number, (earlier, later) in enumerate(pairwise(times)):
        assert later - earlier > 0.7 * 2**number * FIRST_WAIT
    attempts = [line.message for line in caplog.records if f"stream {stream}," in line.message]
    assert sum("retrying in " in line and said in line for line in attempts) >= 4


@pytest.mark.parametrize(
    ("error", "longest"),
    [
        (PullError("the source ended"), 30.0),
        (BadVideoError("the source has no key frame"), 30.0),
        (PullError("the source is an HTML page", lasting=True), 300.0),
        (SourceForbiddenError("camera", 80), 300.0),
    ],
)
def test_the_longest_wait_depends_on_whether_somebody_has_to_mend_the_source(error: Exception, longest: float) -> None:
    assert 0.75 * longest <= next_wait(error, 100) <= 1.25 * longest


def test_a_wrong_password_is_tried_so_seldom_that_no_camera_locks_out() -> None:
    error = PullError("the source can't be read", lasting=True, unauthorized=True)
    waits = [next_wait(error, attempts=8, refusals=refusals) for refusals in range(1, 6)]
    for wait, wanted in zip(waits, (60.0, 300.0, 1800.0, 1800.0, 1800.0), strict=True):
        assert 0.75 * wanted <= wait <= 1.25 * wanted


@pytest.mark.parametrize(
    ("user", "offered", "said"),
    [
        ("admin:wrong@", 'Basic realm="camera"', "it refuses the user and password of its URL"),
        ("", 'Basic realm="camera"', "its URL lacks a user and password"),
        ("admin:right@", 'NTLM realm="camera"', "it wants NTLM authentication"),
    ],
)
def test_a_refused_password_is_reported_and_not_tried_again_until_it_is_mended(
    puller: Running, web: SourceServer, user: str, offered: str, said: str
) -> None:
    def locked(handler: SourceHandler) -> None:
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", offered)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    web.received.clear()
    web.responders["/locked"] = locked
    stream = pull(puller, f"http://{user}127.0.0.1:{web.server_port}/locked")
    found = until(puller, stream, "unauthorized")
    assert said in found["problem"]
    assert "wrong" not in found["problem"]
    assert "the next attempt is in about" in found["problem"]
    assert not found["connected"]
    web.responders["/other"] = camera(3)
    other = pull(puller, f"{web.address}/other")
    eventually(lambda: info(puller, other)["reconnects"] >= 4)  # meanwhile the locked one could have, too
    assert len(web.requests("/locked")) == 1
    web.responders["/locked"] = web.responders["/clip.ts"]
    assert puller.http.post(f"/v1/streams/{stream}/resume").is_success
    ended = until(puller, stream, "ended")
    assert (ended["frames"], ended.get("problem")) == (FRAMES, None)


def digest(password: str, responder: Responder, seen: list[str]) -> Responder:
    """Respond only to a request that is signed with a password (RFC 7616), with a new nonce after every second one."""

    def md5(*parts: str) -> str:
        return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()

    def respond(handler: SourceHandler) -> None:
        kind, _, text = handler.headers.get("Authorization", "").partition(" ")
        fields = dict(re.findall(r'(\w+)="?([^",]*)"?', text)) if kind == "Digest" else {}
        nonce = f"nonce-{len(seen) // 2}"
        login = md5("admin", "camera", password)
        signed = md5("GET", handler.path)
        wanted = md5(login, nonce, fields.get("nc", ""), fields.get("cnonce", ""), "auth", signed)
        if fields.get("response") == wanted and fields["uri"] == handler.path:
            seen.append(nonce)
            responder(handler)
        else:
            handler.send_response(401)
            challenge = f'Digest realm="camera", nonce="{nonce}", qop="auth", algorithm=MD5'
            handler.send_header("WWW-Authenticate", challenge)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    return respond


def test_a_web_camera_with_digest_authentication_is_pulled(puller: Running, web: SourceServer) -> None:
    seen: list[str] = []
    web.responders["/list.m3u8"] = digest("ri ght", playlist("/clip.ts?a=1"), seen)
    web.responders["/clip.ts?a=1"] = digest("ri ght", web.responders["/clip.ts"], seen)
    address = web.address.replace("//", "//admin:ri%20ght@")
    ended = until(puller, pull(puller, f"{address}/list.m3u8"), "ended")
    assert (ended["frames"], ended.get("problem")) == (FRAMES, None)
    assert len(seen) >= 2
    wrong = pull(puller, f"{web.address.replace('//', '//admin:wrong@')}/list.m3u8")
    assert "it refuses the user and password" in until(puller, wrong, "unauthorized")["problem"]


def test_a_pulled_stream_is_connected_only_while_frames_come(
    puller: Running, web: SourceServer, hang_up: threading.Event
) -> None:
    web.responders["/silent"] = silent(hang_up)
    silent_stream = pull(puller, f"{web.address}/silent")
    web.responders["/live"] = camera(30, hang_up)
    live = pull(puller, f"{web.address}/live")
    running = until(puller, live, "running")
    assert running["connected"]
    assert running["frame_age"] < 30
    assert not until(puller, silent_stream, "connecting")["connected"]
    assert "frame_age" not in info(puller, silent_stream) or info(puller, silent_stream)["frame_age"] is None
    web.responders.pop("/live")
    hang_up.set()
    assert not until(puller, live, "retrying")["connected"]


def test_pause_disconnects_from_the_source_and_resume_connects_again(puller: Running, web: SourceServer) -> None:
    web.responders["/camera"] = web.responders["/other"] = camera(3)
    stream = pull(puller, f"{web.address}/camera")
    until(puller, stream, "running")
    assert puller.http.post(f"/v1/streams/{stream}/pause").is_success
    until(puller, stream, "paused")
    asked, frames = len(web.requests("/camera")), info(puller, stream)["frames"]
    other = pull(puller, f"{web.address}/other")
    eventually(lambda: info(puller, other)["reconnects"] >= 2)  # meanwhile the paused one could have, too
    assert (len(web.requests("/camera")), info(puller, stream)["frames"]) == (asked, frames)
    assert info(puller, stream)["state"] == "paused"
    assert puller.http.post(f"/v1/streams/{stream}/resume").is_success
    eventually(lambda: info(puller, stream)["frames"] > frames)


def test_only_pulled_streams_can_be_paused_and_only_others_can_be_fed(
    puller: Running, web: SourceServer, hang_up: threading.Event
) -> None:
    puller.http.post("/v1/streams", json={"id": "fed"})
    assert puller.http.post("/v1/streams/fed/pause").status_code == 409
    assert puller.http.post("/v1/streams/nobody/pause").status_code == 404
    web.responders["/silent"] = silent(hang_up)
    stream = pull(puller, f"{web.address}/silent")
    assert puller.frame(stream).status_code == 409
    for hello in (Hello(), Hello(resumed=True)):
        with puller.connect(stream) as talk:
            talk.send(hello)
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


def test_nothing_is_pulled_by_default(server: Running, web: SourceServer) -> None:
    refused = server.http.post("/v1/streams", json={"source": f"{web.address}/clip.ts"})
    assert refused.status_code == 403
    assert "--allow-pull" in refused.json()["detail"]


@pytest.mark.parametrize("way", ["redirect", "playlist"])
@pytest.mark.parametrize("to", ["http://localhost.:{port}/secret", "http://[::1]:{port}/secret", "file:///etc/passwd"])
def test_neither_redirects_nor_playlists_lead_to_hosts_that_are_not_allowed(
    start: Starter, web: SourceServer, way: str, to: str
) -> None:
    server = start(allow_pull=("127.0.0.2",))
    to = to.format(port=web.server_port)
    web.responders["/trap.m3u8"] = redirect(to) if way == "redirect" else playlist(to)
    web.received.clear()
    stream = pull(server, f"http://127.0.0.2:{web.server_port}/trap.m3u8")
    assert until(server, stream, "retrying")["problem"]
    assert {asked.path for asked in web.received} == {"/trap.m3u8"}


OPENING = {
    "concat": b"ffconcat version 1.0\nfile secret.mp4\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\n"
    b"a=rtpmap:96 H264/90000\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
    b'<Representation id="1"><BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
}


def test_a_camera_that_cannot_be_reached_is_not_called_something_else(puller: Running) -> None:
    source = "rtsp://127.0.0.1:1/stream1"
    created = puller.http.post("/v1/streams", json={"id": "away", "source": source})
    assert created.status_code == 201, created.text
    assert until(puller, "away", "retrying")["problem"] == "the source can't be read: Connection refused"
    puller.http.delete("/v1/streams/away")


def test_a_camera_that_takes_connections_but_answers_nothing_is_said_to_be_silent(impatient: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as camera:  # the system takes connections for it
        stream = pull(impatient, f"rtsp://127.0.0.1:{camera.getsockname()[1]}/stream1")
        problem = until(impatient, stream, "retrying")["problem"]
    assert re.fullmatch(r"the source sent nothing for [\d.]+ s", problem)


@pytest.mark.parametrize("kind", OPENING)
def test_formats_that_open_further_files_are_refused(puller: Running, web: SourceServer, kind: str) -> None:
    web.responders["/trap"] = file(OPENING[kind])
    web.received.clear()
    stream = pull(puller, f"{web.address}/trap")
    assert until(puller, stream, "retrying")["problem"]
    assert {asked.path for asked in web.received} == {"/trap"}


@pytest.mark.parametrize(
    "scheme", ["file", "subfile,,start,0,end,9,,:file", "concat:file", "crypto+file", "data", "tcp"]
)
def test_playlists_open_nothing_but_web_pages(puller: Running, web: SourceServer, scheme: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(mpegts(5, NO_DELAY))
    web.responders["/trap.m3u8"] = playlist(f"{scheme}://{secret}")
    stream = pull(puller, f"{web.address}/trap.m3u8")
    assert until(puller, stream, "retrying")["problem"]
    assert puller.http.get(f"/v1/streams/{stream}").json()["frames"] == 0


def test_a_playlist_in_a_playlist_is_not_followed(puller: Running, web: SourceServer) -> None:
    """The segment is a playlist, too, whose own segment is a video."""
    web.responders["/video.ts"] = file(mpegts(5, NO_DELAY))
    web.responders["/inner.ts"] = playlist(f"{web.address}/video.ts")
    web.responders["/outer.m3u8"] = playlist(f"{web.address}/inner.ts")
    stream = pull(puller, f"{web.address}/outer.m3u8")
    assert until(puller, stream, "retrying")["problem"]
    assert not web.requests("/video.ts")


def test_a_pattern_in_a_url_does_not_stand_for_several_files(puller: Running, web: SourceServer) -> None:
    web.received.clear()
    stream = pull(puller, f"{web.address}/picture%d.jpg")
    assert until(puller, stream, "retrying")["problem"]
    assert web.received == []  # FFmpeg would ask for /picture0.jpg to /picture4.jpg


def drip(handler: SourceHandler) -> None:
    """Send bytes that are no video, one by one."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while not handler.server.over.wait(TIMEOUT / 10):
            handler.wfile.write(b"\0")


def test_a_source_that_drips_can_be_paused_and_deleted(puller: Running, web: SourceServer) -> None:
    web.responders["/drip"] = drip
    web.received.clear()
    stream = pull(puller, f"{web.address}/drip")
    eventually(lambda: len(web.requests("/drip")) == 1)
    assert puller.http.post(f"/v1/streams/{stream}/pause").is_success
    until(puller, stream, "paused")
    puller.http.post(f"/v1/streams/{stream}/resume")
    eventually(lambda: len(web.requests("/drip")) == 2)
    assert puller.tasks("Pull.run", "Pipeline.feed")
    assert puller.http.delete(f"/v1/streams/{stream}").is_success
    eventually(lambda: not puller.tasks("Pull.", "Pipeline."))


def test_a_source_that_only_drips_times_out(impatient: Running, web: SourceServer) -> None:
    web.responders["/drip"] = drip
    stream = pull(impatient, f"{web.address}/drip")
    assert "no frame came for 0.9 s" in until(impatient, stream, "retrying")["problem"]


def test_a_source_without_a_frame_is_never_running_and_is_tried_less_and_less_often(
    puller: Running, web: SourceServer
) -> None:
    data = encode(moving(3), "mpegts", NO_DELAY)[0]
    web.responders["/empty"] = file(data[: 188 * 4])
    web.received.clear()
    stream = pull(puller, f"{web.address}/empty")
    assert until(puller, stream, "retrying")["frames"] == 0
    eventually(lambda: len(web.requests("/empty")) == 5)
    times = [asked.at for asked in web.requests("/empty")]
    for number, (earlier, later) in enumerate(pairwise(times)):
        assert later - earlier > 0.7 * 2**number * FIRST_WAIT  # waits differ by up to a quarter
    assert info(puller, stream)["frames"] == 0


@pytest.mark.parametrize("to", ["http://[x/", "http://127.0.0.1:99999/", "http://127.0.0.1/vid\u00e9o"])
def test_a_redirect_to_something_that_is_no_url_is_tried_again(puller: Running, web: SourceServer, to: str) -> None:
    web.responders["/odd"] = redirect(to)
    stream = pull(puller, f"{web.address}/odd")
    assert "isn't a URL" in until(puller, stream, "retrying")["problem"]


def test_a_wrong_password_is_not_shown(puller: Running) -> None:
    refused = puller.http.post("/v1/streams", json={"source": "rtsp://admin:hunter/2222@10.0.0.5/s"})
    assert refused.status_code == 400
    assert "isn't a URL" in refused.json()["detail"]
    for part in ("admin", "hunter", "2222"):
        assert part not in refused.text


def test_credentials_are_sent_but_never_shown(
    puller: Running, web: SourceServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    web.received.clear()
    stream = pull(puller, f"{web.address.replace('//', '//me:se%20cret@')}/nothing?token=secret")
    shown = until(puller, stream, "retrying")
    assert shown["source"] == f"{web.address}/nothing"
    assert web.received[0].headers["User-Agent"] == "keywarp"
    assert web.received[0].headers["Authorization"] == "Basic bWU6c2UgY3JldA=="
    assert f"{web.address}/nothing: retrying" in caplog.text
    assert "cret" not in caplog.text + str(shown)


def test_a_server_that_stops_disconnects_from_its_sources(start: Starter, web: SourceServer) -> None:
    server = start(allow_pull=("127.0.0.0/8",))
    web.responders["/camera"] = camera(3)
    before = pull_threads()
    stream = pull(server, f"{web.address}/camera")
    until(server, stream, "running")
    assert pull_threads() == before + 1
    server.stop()
    eventually(lambda: pull_threads() == before)


def pull_threads() -> int:
    return sum(thread.name.startswith("keywarp-pull") for thread in threading.enumerate())


def test_sources_that_are_waited_for_do_not_hold_up_other_streams(
    puller: Running, web: SourceServer, hang_up: threading.Event
) -> None:
    web.responders["/silent"] = silent(hang_up)
    web.received.clear()
    waiting = [pull(puller, f"{web.address}/silent") for _ in range(8)]
    eventually(lambda: len(web.requests("/silent")) == 8)
    with puller.connect("fed", Hello()) as talk:
        responses, done = talk.stream([(i, jpeg()) for i in range(20)])
    assert [(response.type, response.id) for response in responses] == [("result", i) for i in range(20)]
    assert done.frames == 20
    assert [info(puller, stream)["state"] for stream in waiting] == ["connecting"] * 8
