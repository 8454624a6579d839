import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from keywarp.client import (
    AsyncClient,
    Client,
    ConnectError,
    FrameError,
    MediaError,
    ModelNotFoundError,
    ProcessedFrame,
    ProtocolError,
    Reconnect,
    SourceError,
    SourceOptionError,
    StreamBusyError,
    StreamError,
    StreamGoneError,
    StreamTakenOverError,
    UnavailableError,
    open_source,
)
from keywarp.client.async_streaming import AsyncConnection
from keywarp.client.feed import Feed, StreamSetup
from keywarp.client.payloads import open_payloads
from keywarp.client.streaming import Connection
from keywarp.protocol import CloseCode, Codec, Credit, FrameHeader, Hello, Problem
from tests.client.media import MODEL, grey_level, picture, result, write_cut_video, write_video
from tests.client.scripted import Peer, ScriptedApi, ScriptedPeer
from tests.client.twins import Twin
from tests.server.conftest import eventually
from tests.videos.films import film, textured


def frames(count: int) -> list[NDArray[np.uint8]]:
    return [picture(grey_level(index)) for index in range(count)]


def test_each_frame_has_its_result_in_order(twin: Twin) -> None:
    images = frames(12)
    with ScriptedPeer() as server:
        results = twin.stream(server.address, images, stream_id="cam")
    assert [r.frame for r in results] == list(range(12))
    assert [r.kind for r in results] == ["key", *["propagated"] * 9, "key", "propagated"]
    assert [r.key_age for r in results] == [*range(10), 0, 1]
    for index, given in enumerate(results):
        assert given.image is not None
        np.testing.assert_array_equal(given.image, images[index])
        assert (given.labels == index % 3).all()
        assert given.labels.shape == (3, 4)
        assert given.latency is not None
        assert given.latency > 0
    assert server.paths == ["/v1/streams/cam/ws"]


def test_hello_carries_the_options(twin: Twin) -> None:
    hellos: list[Hello] = []

    def script(peer: Peer) -> None:
        hellos.append(peer.greet())
        while (taken := peer.take()) is not None:
            assert simplejpeg.decode_jpeg(taken[1]).shape == (48, 64, 3)
            peer.answer(0, taken[0])
        peer.finish(1)

    with ScriptedPeer(script) as server:
        twin.stream(server.address, frames(1), model="street", interval=4)
        twin.stream(server.address, frames(1), schedule="adaptive", max_interval=20, max_age=2.5, overlap=3)
    assert hellos == [
        Hello(model="street", interval=4),
        Hello(schedule="adaptive", max_interval=20, max_age=2.5, overlap=3),
    ]


def test_what_an_open_source_has_decided_is_not_asked_for_again(twin: Twin, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4")
    options: list[dict[str, Any]] = [{"upright": False}, {"video": 0}]
    with ScriptedPeer() as server:
        for option in options:
            with open_source(path) as source, pytest.raises(SourceOptionError, match="give it to `open_source`"):
                twin.stream(server.address, source, **option)
        assert server.paths == []
        assert len(twin.stream(server.address, path, **options[1])) == 20


def test_only_a_container_s_video_is_left_to_the_server_to_choose(twin: Twin, tmp_path: Path) -> None:
    hellos: list[Hello] = []

    def script(peer: Peer) -> None:
        hellos.append(peer.greet())
        peer.fail(CloseCode.INTERNAL_ERROR, "enough")

    path = write_video(tmp_path / "v.mp4")
    for codec in ("image", "h264", "mp4"):
        with ScriptedPeer(script) as server, pytest.raises(StreamError):
            twin.stream(server.address, path, codec=codec, video=0)
    assert [hello.video for hello in hellos] == [None, None, 0]


def test_frames_are_read_only_as_results_are_taken(twin: Twin) -> None:
    read = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        while True:
            read += 1
            yield picture(0)

    surplus: list[int] = []

    def watch(given: ProcessedFrame) -> None:
        surplus.append(read - (given.frame + 1))

    with ScriptedPeer(credit=100) as server:
        twin.stream(server.address, endless(), in_flight=3, at_most=20, watch=watch)
    assert max(surplus) <= 3


def test_leaving_the_loop_closes_the_connection_and_leaves_no_thread(twin: Twin) -> None:
    with ScriptedPeer() as server:
        results = twin.stream(server.address, frames(50), at_most=3)
        gc.collect()
        assert server.left.wait(10)
    assert len(results) == 3
    assert not [thread for thread in threading.enumerate() if thread.name == "keywarp-receive"]


def test_an_interrupt_closes_the_connection() -> None:
    def interrupted() -> Iterator[NDArray[np.uint8]]:
        yield picture(0)
        yield picture(1)
        raise KeyboardInterrupt

    with ScriptedPeer() as server, Client(server.address) as client:
        with pytest.raises(KeyboardInterrupt):
            list(client.stream(interrupted()))
        assert server.left.wait(10)


def test_a_cancelled_task_closes_the_connection() -> None:
    def silent(peer: Peer) -> None:
        peer.greet()
        while True:
            peer.take()

    async def cancel(address: str) -> None:
        async with AsyncClient(address) as client, client.stream(frames(5)) as results:
            task = asyncio.ensure_future(anext(results))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with ScriptedPeer(silent) as server:
        asyncio.run(cancel(server.address))
        assert server.left.wait(10)


def test_a_closed_stream_has_no_more_results() -> None:
    with ScriptedPeer() as server, Client(server.address) as client:
        with client.stream(frames(9)) as results:
            assert results.ready.model == MODEL
            next(results)
        assert list(results) == []
        assert server.left.wait(10)


def refuse_third(peer: Peer) -> None:
    peer.greet()
    count = 0
    while (taken := peer.take()) is not None:
        (peer.refuse if count == 2 else peer.answer)(count, taken[0])
        count += 1
    peer.finish(count - 1)


def test_a_frame_that_fails_ends_the_stream(twin: Twin) -> None:
    with ScriptedPeer(refuse_third) as server:
        with pytest.raises(FrameError, match="frame 2: the JPEG is cut off") as caught:
            twin.stream(server.address, frames(6))
        assert server.left.wait(10)
    assert (caught.value.frame, caught.value.id, caught.value.problem.status) == (2, 2, 422)


def test_a_frame_that_fails_can_be_skipped(twin: Twin) -> None:
    with ScriptedPeer(refuse_third) as server:
        results = twin.stream(server.address, frames(6), on_error="skip")
    assert [r.frame for r in results] == [0, 1, 3, 4, 5]


def test_skipped_frames_are_counted() -> None:
    with ScriptedPeer(refuse_third) as server, Client(server.address) as client:
        results = client.stream(frames(6), on_error="skip")
        list(results)
        assert results.skipped == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CloseCode.NOT_FOUND, ModelNotFoundError),
        (CloseCode.STREAM_BUSY, StreamBusyError),
        (CloseCode.STREAM_GONE, StreamGoneError),
        (CloseCode.TAKEN_OVER, StreamTakenOverError),
        (CloseCode.BAD_MEDIA, MediaError),
        (CloseCode.SERVICE_RESTART, UnavailableError),
        (CloseCode.TRY_AGAIN_LATER, UnavailableError),
        (CloseCode.CREDIT_EXCEEDED, StreamError),
        (CloseCode.INTERNAL_ERROR, StreamError),
    ],
)
def test_a_close_code_becomes_its_error_with_the_servers_reason(code: CloseCode, kind: type[StreamError]) -> None:
    def script(peer: Peer) -> None:
        peer.connection.recv()
        peer.fail(code, "for a reason")

    with (
        ScriptedPeer(script) as server,
        Client(server.address) as client,
        pytest.raises(kind, match="for a reason") as caught,
    ):
        client.stream(frames(3))
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert caught.value.problem == Problem(title="Failed", status=400, detail="for a reason")


def test_results_before_a_fatal_error_are_given(twin: Twin) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        for frame in range(2):
            taken = peer.take()
            assert taken
            peer.answer(frame, taken[0])
        peer.fail(CloseCode.STREAM_GONE, "it was deleted")

    taken: list[ProcessedFrame] = []
    with ScriptedPeer(script) as server, pytest.raises(StreamGoneError, match="it was deleted"):
        twin.stream(server.address, frames(9), watch=taken.append)
    assert [r.frame for r in taken] == [0, 1]


def test_a_broken_connection_is_reported(twin: Twin) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take()
        peer.connection.socket.shutdown(socket.SHUT_RDWR)

    with ScriptedPeer(script) as server, pytest.raises(ConnectError, match="broke"):
        twin.stream(server.address, frames(9), reconnect=0)


def test_a_server_that_does_not_speak_the_protocol_is_reported(twin: Twin) -> None:
    def lie(peer: Peer) -> None:
        peer.connection.recv()
        peer.connection.send('{"type": "welcome"}')
        peer.connection.recv()

    def binary(peer: Peer) -> None:
        peer.connection.recv()
        peer.connection.send(b"\x00")
        peer.connection.recv()

    for script in (lie, binary):
        with ScriptedPeer(script) as server, pytest.raises(ProtocolError):
            twin.stream(server.address, frames(1))
    with ScriptedApi(404, b"nothing here", "text/plain") as web, pytest.raises(ProtocolError, match="HTTP status 404"):
        twin.stream(web.address, frames(1))


def test_an_unreachable_server_is_reported(twin: Twin) -> None:
    with pytest.raises(ConnectError, match="keywarp serve"):
        twin.stream("http://127.0.0.1:9", frames(1))


def test_an_image_too_big_for_the_server_is_not_sent() -> None:
    def script(peer: Peer) -> None:
        peer.greet(max_message_bytes=100)
        peer.take()

    with ScriptedPeer(script) as server, Client(server.address) as client:
        with pytest.raises(MediaError, match="at most 100"):
            list(client.stream(frames(1)))
        assert server.left.wait(10)


def test_a_damaged_video_gives_the_results_of_its_sound_frames_and_then_its_error(twin: Twin, tmp_path: Path) -> None:
    cut = write_cut_video(tmp_path)
    taken: list[ProcessedFrame] = []
    with ScriptedPeer() as server, pytest.raises(SourceError, match="damaged"):
        twin.stream(server.address, cut, watch=taken.append)
    assert 0 < len(taken) < 200


@pytest.mark.parametrize("codec", ["image", "h264"])
def test_what_a_source_lacks_is_counted(tmp_path: Path, codec: Codec) -> None:
    cut = write_cut_video(tmp_path)
    with ScriptedPeer() as server, Client(server.address) as client, client.stream(cut, codec=codec) as results:
        with pytest.raises(SourceError, match="is damaged: 83 "):
            for _ in results:
                pass
        assert results.missing == 117
    whole = film("matroska", [textured(number) for number in range(12)])
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])  # it doesn't say how many frames it had
    with ScriptedPeer() as server, Client(server.address) as client:
        with client.stream(tmp_path / "cut.mkv", codec=codec) as results, pytest.raises(SourceError, match="too early"):
            for _ in results:
                pass
        assert results.missing == 1


def test_what_the_server_cannot_find_in_a_file_is_counted_by_the_files_index(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        taken = peer.take()
        assert taken
        for number in range(3):
            peer.answer(number, taken[0])
        peer.fail(CloseCode.BAD_MEDIA, "the MP4 stream ends 1000 bytes too early")

    with ScriptedPeer(script) as server, Client(server.address) as client:
        with client.stream(write_cut_video(tmp_path), codec="mp4") as results:
            assert [results.missing for _ in zip(range(3), results, strict=False)] == [0, 0, 0]  # so far
            with pytest.raises(MediaError):
                next(results)
        assert results.missing == 197


class Decoder:
    """A server that decodes packets. Results come in display order, so some come late."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def __call__(self, peer: Peer) -> None:
        codec = peer.greet().codec
        decoder = av.CodecContext.create("libdav1d" if codec == "av1" else codec, "r")
        assert isinstance(decoder, VideoCodecContext)
        headers: list[FrameHeader] = []
        while True:
            taken = peer.take()
            packet = None
            if taken is not None:
                headers.append(taken[0])
                packet = av.Packet(taken[1])
                packet.pts = len(headers) - 1
                peer.credit += 1
                peer.send(Credit(credit=peer.credit))
            for frame in decoder.decode(packet):
                assert frame.pts is not None
                header = headers[frame.pts]
                peer.send(result(len(self.levels), id=header.id, timestamp=header.timestamp))
                self.levels.append(float(frame.to_ndarray(format="gray").mean()))
            if taken is None:
                peer.finish(len(self.levels))
                return


@pytest.mark.parametrize("suffix", ["mp4", "ts", "h264", "mkv"])
def test_h264_is_not_compressed_again(twin: Twin, tmp_path: Path, suffix: str) -> None:
    video = write_video(tmp_path / f"video.{suffix}")
    script = Decoder()
    with ScriptedPeer(script, credit=2) as server:
        results = twin.stream(server.address, video, codec="h264", decode=True)
    assert len(results) == 20
    expected = [grey_level(frame) for frame in range(20)]
    np.testing.assert_allclose(script.levels, expected, atol=3)
    for frame, given in enumerate(results):
        assert given.frame == frame
        assert given.image is not None
        assert abs(float(given.image.mean()) - grey_level(frame)) < 3
        assert given.latency is not None
    assert sorted(str(r.result.id) for r in results) == sorted(str(i) for i in range(20))
    if suffix == "mp4":
        assert [r.result.timestamp for r in results] == pytest.approx([i / 10 for i in range(20)])


@pytest.mark.parametrize(
    ("codec", "encoder", "suffix"),
    [("hevc", "libx265", "mp4"), ("vp8", "libvpx", "webm"), ("vp9", "libvpx-vp9", "mkv"), ("av1", "libsvtav1", "mp4")],
)
def test_other_codecs_are_not_compressed_again(
    twin: Twin, tmp_path: Path, codec: Codec, encoder: str, suffix: str
) -> None:
    video = write_video(tmp_path / f"video.{suffix}", codec=encoder)
    script = Decoder()
    with ScriptedPeer(script) as server:
        results = twin.stream(server.address, video, codec=codec)
    np.testing.assert_allclose(script.levels, [grey_level(frame) for frame in range(20)], atol=6)
    assert sorted(str(r.result.id) for r in results) == sorted(str(i) for i in range(20))


@pytest.mark.parametrize("codec", ["h264", "mp4"])
def test_a_missing_result_does_not_shift_the_images_of_later_ones(tmp_path: Path, codec: Codec) -> None:
    video = write_video(tmp_path / "video.mp4")
    packets = {
        round(payload.timestamp * 10): payload.id
        for payload in open_payloads(video, "h264")
        if payload.timestamp is not None
    }
    setup = StreamSetup(
        Hello(codec=codec),
        in_flight=2,
        quality=90,
        on_error="skip",
        decode=True,
        stream_id=None,
        reconnect=Reconnect(),
    )
    feed = Feed(video, setup)
    for frame in (0, 3, 4, 19):
        found = result(frame, id=packets[frame] if codec == "h264" else None, timestamp=frame / 10)
        image = feed.with_image(ProcessedFrame(found)).image
        assert image is not None
        assert abs(float(image.mean()) - grey_level(frame)) < 3
    feed.close()


def test_without_decoding_results_have_no_image(twin: Twin, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4")
    with ScriptedPeer(Decoder()) as server:
        results = twin.stream(server.address, video, codec="h264")
    assert [r.image for r in results] == [None] * 20


@pytest.mark.parametrize(
    ("container", "suffix", "encoder"),
    [("mpegts", "ts", "libx264"), ("mp4", "mp4", "libx264"), ("webm", "webm", "libvpx")],
)
def test_a_container_is_sent_byte_for_byte(
    twin: Twin, tmp_path: Path, container: Codec, suffix: str, encoder: str
) -> None:
    video = write_video(tmp_path / f"video.{suffix}", frames=400, codec=encoder)
    received = bytearray()

    def script(peer: Peer) -> None:
        assert peer.greet().codec == container
        while (taken := peer.take()) is not None:
            received.extend(taken[1])
            peer.answer(0, taken[0])
        peer.finish(1)

    with ScriptedPeer(script, credit=1) as server:
        results = twin.stream(server.address, video, codec=container)
    assert bytes(received) == video.read_bytes()
    assert results[0].latency is None


@pytest.mark.parametrize(
    ("codec", "make", "reason"),
    [
        ("h264", lambda p: write_video(p / "v.avi", codec="mpeg4"), "is mpeg4, not h264: use the codec `image`"),
        ("vp9", lambda p: write_video(p / "v.mp4"), "is h264, not vp9: use the codec `image` or `h264`"),
        ("h264", lambda p: p / "missing.mp4", "no file"),
        ("h264", lambda _: frames(2), "not list"),
        ("mpegts", lambda p: write_video(p / "v.mp4"), "not mpegts"),
    ],
)
def test_a_file_that_does_not_suit_the_codec_is_refused(
    twin: Twin, tmp_path: Path, codec: Codec, make: Callable[[Path], object], reason: str
) -> None:
    with ScriptedPeer() as server, pytest.raises(SourceError, match=reason):
        twin.stream(server.address, make(tmp_path), codec=codec)


def test_no_connection_is_made_if_the_source_is_missing(twin: Twin) -> None:
    with ScriptedPeer() as server:
        with pytest.raises(SourceError, match="no file"):
            twin.stream(server.address, "missing.mp4")
        assert server.paths == []


def test_ready_of_an_async_stream_needs_an_open_stream() -> None:
    async def look() -> None:
        async with AsyncClient() as client:
            with pytest.raises(RuntimeError, match="isn't open"):
                _ = client.stream(frames(1)).ready

    asyncio.run(look())


def test_a_connection_notes_when_a_message_arrives_not_when_it_is_read() -> None:
    with ScriptedPeer() as server, Connection(server.address, "s", 10, {}) as connection:
        connection.send(Hello().model_dump_json())
        eventually(lambda: connection.has_arrived)
        asked = time.monotonic()
        _, arrived = connection.receive()
        assert arrived <= asked


def test_an_asynchronous_connection_notes_when_a_message_arrives_too() -> None:
    async def run(address: str) -> None:
        async with await AsyncConnection.open(address, "s", 10, {}) as connection:
            await connection.send(Hello().model_dump_json())
            async with asyncio.timeout(10):
                while not connection.has_arrived:  # noqa: ASYNC110 (a connection has no event for it)
                    await asyncio.sleep(0.001)
            asked = time.monotonic()
            _, arrived = await connection.receive()
            assert arrived <= asked

    with ScriptedPeer() as server:
        asyncio.run(run(server.address))
