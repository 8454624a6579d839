"""Videos as people have them, in every way in: the SDK with each codec, uploads and pulls, through a real server."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keywarp.client import Client, FrameError, KeywarpError, ProcessedFrame
from keywarp.client.images import encode_jpeg
from keywarp.protocol import Codec, Done, Error, Result, ServerMessage
from keywarp.videos import open_container
from tests.server.conftest import Running, Starter, eventually
from tests.server.source_server import SourceHandler, SourceServer, file
from tests.videos.films import (
    B_FRAMES,
    FASTSTART,
    FRAMES,
    OPEN_GROUPS,
    copied,
    cut,
    film,
    grey,
    number_of,
    red_and_green,
    saved,
    spoiled,
    textured,
    with_cover,
    without,
)

LISTED = list(range(FRAMES))
GOOD = [n / 25 for n in LISTED]


@pytest.fixture(scope="module")
def films(start_for_all: Starter) -> Running:
    return start_for_all(allow_pull=("127.0.0.1",))


@dataclass
class Given:
    """What a way in gave."""

    results: list[Result]
    errors: int  # frames with an error
    images: list[Any]
    fault: str | None  # the sentence at the end, if it isn't `done`
    notes: tuple[str, ...] = ()

    @property
    def times(self) -> list[float | None]:
        return [result.timestamp for result in self.results]


def streamed(server: Running, path: Path | str, codec: Codec, **options: Any) -> Given:
    """Send a file with the SDK."""
    found: list[ProcessedFrame] = []
    fault = None
    with Client(server.url) as client, client.stream(path, codec=codec, on_error="skip", **options) as results:
        try:
            found.extend(results)
        except KeywarpError as error:
            fault = str(error)
        return Given([f.result for f in found], results.skipped, [f.image for f in found], fault, results.notes)


def uploaded(server: Running, data: bytes, kind: str = "video/mp4", query: str = "") -> Given:
    """Upload a file over REST."""
    response = server.http.post(f"/v1/videos{query}", content=data, headers={"content-type": kind})
    if response.status_code != 200:
        return Given([], 0, [], response.json()["detail"])
    lines = [ServerMessage.validate_json(line) for line in response.text.splitlines()]
    last = lines.pop()
    assert isinstance(last, Done | Error)
    return Given(
        [line for line in lines if isinstance(line, Result)],
        sum(isinstance(line, Error) for line in lines),
        [],
        last.problem.detail if isinstance(last, Error) else None,
        last.notes if isinstance(last, Done) else (),
    )


def pulled(server: Running, web: SourceServer, data: bytes, **options: Any) -> dict[str, Any]:
    """Let the server pull a file, and return the stream's last state."""
    name = f"/{time.monotonic_ns()}"
    web.responders[name] = file(data)
    return pulled_from(server, f"{web.address}{name}", **options)


def pulled_from(server: Running, source: str, **options: Any) -> dict[str, Any]:
    stream = server.http.post("/v1/streams", json={"source": source} | options).json()["id"]
    found: dict[str, Any] = {}

    def is_over() -> bool:
        found.update(server.http.get(f"/v1/streams/{stream}").json())
        return found["state"] in ("ended", "failed")

    eventually(is_over)
    server.http.delete(f"/v1/streams/{stream}")
    return found


def area(result: Result, name: str) -> float:
    assert result.segmentation
    return next((region.area for region in result.segmentation.regions if region.name == name), 0.0)


SENT: list[Codec] = ["image", "h264", "mp4"]


# https://github.com/roboflow/inference/pull/1911, https://github.com/cvat-ai/cvat/issues/1961
@pytest.mark.parametrize("codec", SENT)
def test_frames_are_turned_upright_unless_they_are_to_be_left_as_stored(
    films: Running, tmp_path: Path, codec: Codec
) -> None:
    from keywarp.images.orientation import turn

    sideways = saved(tmp_path / "v.mp4", film(frames=[turn(red_and_green(), 8)] * 3, turn=-90, muxing=FASTSTART))
    for upright, size in ((None, (128, 64)), (False, (64, 128))):
        given = streamed(films, sideways, codec, upright=upright, decode=codec != "image", resolution="frame")
        assert [(r.width, r.height) for r in given.results] == [size] * 3
        for found in given.images:
            assert found.shape[:2] == (size[1], size[0])
            if upright is None:
                assert found[32, 8, 0] > 200  # red
                assert found[8, 120, 1] > 200  # green
                assert found[56, 120].max() < 60
        assert area(given.results[0], "red") == pytest.approx(0.25, abs=0.05)


def test_uploads_and_pulls_are_turned_upright(films: Running, web: SourceServer) -> None:
    sideways = film(turn=90, muxing=FASTSTART)
    assert [(r.width, r.height) for r in uploaded(films, sideways).results][:1] == [(48, 64)]
    assert [(r.width, r.height) for r in uploaded(films, sideways, query="?upright=false").results][:1] == [(64, 48)]
    assert pulled(films, web, sideways)["frames"] == FRAMES


@pytest.mark.parametrize("codec", SENT)
def test_the_film_is_taken_and_not_its_cover(films: Running, tmp_path: Path, codec: Codec, web: SourceServer) -> None:
    data = with_cover(film_too=True)
    given = streamed(films, saved(tmp_path / "v.mp4", data), codec, decode=True)
    assert (len(given.results), given.fault) == (FRAMES, None)
    assert [number_of(image) for image in given.images] == LISTED
    if codec == "mp4":
        assert len(uploaded(films, data).results) == FRAMES
        assert pulled(films, web, data)["frames"] == FRAMES
        assert "no video in it" in str(uploaded(films, with_cover(film_too=False)).fault)


@pytest.mark.parametrize("codec", SENT)
@pytest.mark.parametrize("options", [{}, B_FRAMES])
def test_packets_outside_the_edit_list_have_no_result(
    films: Running, tmp_path: Path, codec: Codec, options: dict[str, str]
) -> None:
    edited = copied(film(options=options, gop=50), "mp4", 8)
    given = streamed(films, saved(tmp_path / "v.mp4", edited), codec, decode=True)
    assert given.times == pytest.approx(GOOD[:16])
    assert [number_of(image) for image in given.images] == LISTED[8:]
    assert (given.errors, given.fault) == (0, None)


# https://github.com/PyAV-Org/PyAV/issues/185, https://github.com/meta-pytorch/torchcodec/issues/505
@pytest.mark.parametrize("codec", SENT)
@pytest.mark.parametrize("mode", ["lossless", "latest"])
def test_images_stay_with_their_results_after_a_damaged_frame(
    films: Running, tmp_path: Path, codec: Codec, mode: Any
) -> None:
    bad = saved(tmp_path / "v.mp4", spoiled(film(muxing=FASTSTART), 5))
    given = streamed(films, bad, codec, decode=True, mode=mode)
    for result, image in zip(given.results, given.images, strict=True):
        number = round((result.timestamp or 0) * 25)
        assert number != 5
        if not 5 < number < 8:  # up to the video's next key frame they show traces of the damage
            assert number_of(image) == number
    if mode == "latest":
        return
    assert [round((time or 0) * 25) for time in given.times] == [n for n in LISTED if n != 5]
    after = given.results[5]
    assert (after.kind, after.reason) == ("key", "gap")
    assert given.errors == (codec != "image")
    assert (given.fault is None) == (codec != "image")  # the client itself found the damage, and says it at the end


def test_damage_is_an_error_in_uploads_and_pulls(films: Running, web: SourceServer) -> None:
    bad = spoiled(film(muxing=FASTSTART), 5)
    given = uploaded(films, bad)
    assert (len(given.results), given.errors, given.fault) == (FRAMES - 1, 1, None)
    state = pulled(films, web, bad)
    assert (state["frames"], state["errors"], state["key_frames"]) == (FRAMES - 1, 1, 3)


# https://github.com/yaak-ai/rbyte/issues/56, https://github.com/meta-pytorch/torchcodec/issues/165
@pytest.mark.parametrize(("form", "kind"), [("mp4", "video/mp4"), ("matroska", "video/matroska")])
def test_a_video_that_was_cut_off_is_never_done(
    films: Running, web: SourceServer, tmp_path: Path, form: str, kind: str
) -> None:
    whole = film(form, [textured(n) for n in range(12)], muxing=FASTSTART if form == "mp4" else {})
    cut = whole[: len(whole) // 2]
    given = uploaded(films, cut, kind)
    assert 3 < len(given.results) < 8
    assert "too early" in str(given.fault)
    path = saved(tmp_path / "cut", cut)
    for codec in ("image", "h264", "mp4" if form == "mp4" else "webm"):
        given = streamed(films, path, codec)
        assert 3 < len(given.results) < 8
        assert given.fault
    state = pulled(films, web, cut)
    if form == "mp4":
        assert state["state"] == "failed"
        assert "too early" in state["problem"]
    assert 3 < state["frames"] < 8


def test_missing_packets_of_a_transport_stream_are_errors(films: Running, web: SourceServer, tmp_path: Path) -> None:
    lossy = without(film("mpegts", [textured(n) for n in range(16)]), 120, 5)
    given = uploaded(films, lossy, "video/mp2t")
    assert given.errors
    assert len(given.results) + given.errors <= 16
    assert streamed(films, saved(tmp_path / "v.ts", lossy), "mpegts").errors == given.errors
    assert streamed(films, saved(tmp_path / "v.ts", lossy), "h264").errors
    assert pulled(films, web, lossy)["errors"] == given.errors


# https://github.com/mpromonet/webrtc-streamer/issues/61, https://github.com/google/ExoPlayer/issues/8346
@pytest.mark.parametrize("codec", ["image", "h264", "mpegts"])
def test_a_recording_that_begins_in_the_middle_begins_with_its_first_key_frame(
    films: Running, tmp_path: Path, codec: Codec
) -> None:
    whole = film("mpegts", [textured(n) for n in range(20)], gop=10)
    middle = saved(tmp_path / "v.ts", without(whole, 0, len(whole) // 188 // 4))
    given = streamed(films, middle, codec)
    assert (len(given.results), given.errors, given.fault) == (10, 0, None)
    assert any("before the first key frame were left out" in note for note in given.notes)


@pytest.mark.parametrize("codec", ["image", "h264", "webm"])
def test_a_recording_may_be_cut_in_an_open_group_of_pictures(films: Running, tmp_path: Path, codec: Codec) -> None:
    whole = film(options=OPEN_GROUPS)
    with open_container(io.BytesIO(whole)) as container:
        keys = [n for n, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    given = streamed(films, saved(tmp_path / "v.mkv", cut(whole, "matroska", keys[1], 10)), codec, decode=True)
    assert (given.errors, given.fault) == (0, None)
    numbers = [number_of(image) for image in given.images]
    assert numbers == LISTED[-len(numbers) :]
    assert len(numbers) > 12
    assert any("begins in the middle" in note for note in given.notes)


@pytest.mark.parametrize("codec", ["image", "h264", "mpegts"])
def test_joined_recordings_are_complete(films: Running, tmp_path: Path, codec: Codec) -> None:
    joined = film("mpegts", options=B_FRAMES) * 2
    given = streamed(films, saved(tmp_path / "v.ts", joined), codec, decode=True)
    assert (given.errors, given.fault) == (0, None)
    assert [number_of(image) for image in given.images] == [*LISTED, *LISTED]
    known = [time for time in given.times if time is not None]
    assert known == sorted(set(known))


# A picture may come long after its packet
def test_packets_with_the_most_b_frames_are_complete(films: Running, tmp_path: Path) -> None:
    options = {"bf": "16", "refs": "16", "x264-params": "b-adapt=0:b-pyramid=normal"}
    video = saved(tmp_path / "v.mp4", film(frames=[grey(n % FRAMES) for n in range(60)], options=options, gop=100))
    given = streamed(films, video, "h264", decode=True)
    assert (given.errors, given.fault) == (0, None)
    assert [number_of(image) for image in given.images] == [n % FRAMES for n in range(60)]


@pytest.mark.parametrize("decode", [False, True])
def test_packets_of_avi_have_no_times_but_its_pictures_do(films: Running, tmp_path: Path, decode: bool) -> None:
    avi = saved(tmp_path / "v.avi", film("avi", options=B_FRAMES))
    given = streamed(films, avi, "h264", decode=decode)
    if not decode:
        assert given.times == [None] * FRAMES
        return
    assert [number_of(image) for image in given.images] == LISTED
    known = [time for time in given.times if time is not None]
    assert len(known) == FRAMES
    assert known == sorted(set(known))


def test_an_upload_says_that_its_index_is_missing_and_nothing_about_sizes(films: Running) -> None:
    behind = film(frames=[textured(n) for n in range(6)])
    assert "its index (moov) is missing" in str(uploaded(films, behind[: len(behind) // 2]).fault)
    assert "pixels" not in str(uploaded(films, with_cover(film_too=False)).fault)


def test_bare_packets_may_begin_in_the_middle(films: Running) -> None:
    from keywarp.protocol import Hello
    from tests.server.media import NO_DELAY, h264

    units = [unit for _, unit in h264(20, NO_DELAY | {"g": "10"})][4:]
    with films.connect("middle", Hello(codec="h264")) as talk:
        responses, done = talk.stream(list(enumerate(units)))
    assert len(responses) == 10
    assert (done.frames, done.errors) == (10, 0)
    assert "6 packets before the first key frame" in done.notes[0]


@pytest.mark.parametrize("codec", ["image", "h264", "mpegts"])
def test_a_recording_without_a_key_frame_gets_a_sentence(films: Running, tmp_path: Path, codec: Codec) -> None:
    whole = film("mpegts", [textured(n) for n in range(12)], gop=100)
    bare = whole[: 3 * 188] + whole[len(whole) // 188 // 3 * 188 :]
    path = saved(tmp_path / "v.ts", bare)
    try:
        fault = streamed(films, path, codec).fault
    except KeywarpError as error:
        fault = str(error)
    assert "no key frame" in str(fault)
    assert "no key frame" in str(uploaded(films, bare, "video/mp2t").fault)


def hasty(data: bytes, size: int) -> Callable[[SourceHandler], None]:
    """Respond with less than was promised, and close the connection unannounced."""

    def respond(handler: SourceHandler) -> None:
        asked = handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
        start = int(asked or 0)
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Accept-Ranges", "bytes")
        handler.end_headers()
        handler.wfile.write(data[start : start + size])
        handler.close_connection = True

    return respond


@pytest.mark.parametrize("muxing", [{}, FASTSTART])
def test_a_client_reads_a_file_from_a_web_server_that_closes_connections(
    films: Running, web: SourceServer, muxing: dict[str, str]
) -> None:
    data = film(frames=[textured(n) for n in range(12)], muxing=muxing)
    web.responders["/hasty.mp4"] = hasty(data, len(data) // 3)
    given = streamed(films, f"{web.address}/hasty.mp4", "image")
    assert len(given.results) == 12 or given.fault
    web.responders["/short.mp4"] = file(data, cut=len(data) * 3 // 4, ranges=False)
    try:
        fault = streamed(films, f"{web.address}/short.mp4", "image").fault
    except KeywarpError as error:
        fault = str(error)
    assert fault


def test_a_pull_says_that_an_index_behind_needs_ranges_and_does_not_try_again(
    films: Running, web: SourceServer
) -> None:
    behind = film(frames=[textured(n) for n in range(12)])  # larger than FFmpeg's buffer
    web.responders["/behind.mp4"] = file(behind, ranges=False)
    state = pulled_from(films, f"{web.address}/behind.mp4")
    assert state["state"] == "failed"
    assert "no ranges" in state["problem"]
    assert state["reconnects"] == 0


def test_an_error_of_a_frame_ends_a_stream_unless_it_is_to_be_skipped(films: Running, tmp_path: Path) -> None:
    bad = saved(tmp_path / "v.mp4", spoiled(film(muxing=FASTSTART), 5))
    with Client(films.url) as client, pytest.raises(FrameError, match="can't be decoded"):
        list(client.stream(bad, codec="h264"))


# https://github.com/jacksonliam/mjpg-streamer/issues/47, https://github.com/pikvm/ustreamer/pull/289
def test_half_a_picture_of_a_camera_is_an_error(films: Running, web: SourceServer) -> None:
    pictures = [encode_jpeg(textured(number)) for number in range(5)]
    pictures[2] = pictures[2][: len(pictures[2]) // 2]

    def respond(handler: SourceHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        handler.end_headers()
        for picture in pictures:
            part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
            handler.wfile.write(part + picture + b"\r\n")
        handler.wfile.write(b"--next\r\n")
        handler.close_connection = True

    web.responders["/camera"] = respond
    stream = films.http.post("/v1/streams", json={"source": f"{web.address}/camera"}).json()["id"]
    eventually(lambda: films.http.get(f"/v1/streams/{stream}").json()["frames"] >= 4)
    state = films.http.get(f"/v1/streams/{stream}").json()
    films.http.delete(f"/v1/streams/{stream}")
    assert state["errors"] >= 1
    assert state["frames"] % 4 == 0 or state["reconnects"]
