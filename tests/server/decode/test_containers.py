import io
import threading
from contextlib import nullcontext
from itertools import chain
from typing import NamedTuple

import av
import pytest

from keywarp.protocol import Container, FrameHeader
from keywarp.server.decode.containers import ContainerDecoder
from keywarp.server.decode.frames import Decoded, DecodedFrame
from keywarp.server.decode.video import VideoOptions
from keywarp.server.errors import BadVideoError
from tests.server.decode.decoding import LIMIT, decode, decode_all, grey
from tests.server.media import B_FRAMES, ENCODERS, FRAGMENTED, NO_DELAY, encode, moving, pieces
from tests.videos.films import film, textured


class Made(NamedTuple):
    """The container, format, encoder and options of a stream."""

    container: Container
    form: str  # FFmpeg's format
    encoder: str
    options: dict[str, str]
    muxing: dict[str, str]

    def stream(self, count: int = 30) -> bytes:
        return encode(moving(count), self.form, self.options, self.encoder, self.muxing)[0]


HEVC, VP8, VP9, AV1 = ((ENCODERS[c][0], ENCODERS[c][2]) for c in ("hevc", "vp8", "vp9", "av1"))
STREAMS = {
    "mpegts": Made("mpegts", "mpegts", "libx264", B_FRAMES, {}),
    "mpegts-hevc": Made("mpegts", "mpegts", *HEVC, {}),
    "mp4-fragmented": Made("mp4", "mp4", "libx264", {"g": "10"} | B_FRAMES, FRAGMENTED),
    "mp4-index-first": Made("mp4", "mp4", "libx264", B_FRAMES, {"moov_size": "20000"}),
    "mp4-av1": Made("mp4", "mp4", *AV1, FRAGMENTED),
    "webm-live": Made("webm", "webm", *VP8, {"live": "1"}),  # as MediaRecorder writes it
    "webm-vp9": Made("webm", "webm", *VP9, {}),
    "webm-av1": Made("webm", "webm", *AV1, {}),
    "matroska": Made("webm", "matroska", "libx264", NO_DELAY, {}),
}
INDEX_BEHIND = Made("mp4", "mp4", "libx264", B_FRAMES, {})
ALL = pytest.mark.parametrize("made", STREAMS.values(), ids=STREAMS)
CONTAINERS = pytest.mark.parametrize("container", ["mpegts", "mp4", "webm"])


def no_thread_is_left() -> bool:
    return "keywarp-demuxer" not in [thread.name for thread in threading.enumerate()]


@ALL
@pytest.mark.parametrize("size", [188, 1316, 100_000])
def test_every_frame_has_the_containers_timestamp(made: Made, size: int) -> None:
    frames = decode_all(ContainerDecoder(made.container, VideoOptions(LIMIT)), pieces(made.stream(), size))
    assert [grey(p) for p in frames] == list(range(30))
    times = [p.timestamp for p in frames if isinstance(p, DecodedFrame) and p.timestamp is not None]
    assert [round((t - times[0]) * 25) for t in times] == list(range(30))
    assert {p.id for p in frames} == {None}


@pytest.mark.parametrize("name", ["mpegts", "mp4-fragmented", "webm-live", "matroska"])
def test_frames_are_decoded_while_the_stream_arrives(name: str) -> None:
    made = STREAMS[name]
    decoder = ContainerDecoder(made.container, VideoOptions(LIMIT))
    early = list(decode(decoder, pieces(made.stream(250), 1316)))
    decoder.close()
    assert len(early) >= 200


@pytest.mark.parametrize("state", ["not started", "needs input", "holds a frame"])
@ALL
def test_closing_ends_the_demuxers_thread_in_any_state(made: Made, state: str) -> None:
    decoder = ContainerDecoder(made.container, VideoOptions(LIMIT))
    stream = memoryview(made.stream())
    if state == "needs input":
        assert list(decoder.decode(FrameHeader(), stream[:100])) == []
    elif state == "holds a frame":
        next(decoder.decode(FrameHeader(), stream))
    assert no_thread_is_left() == (state == "not started")
    decoder.close()
    decoder.close()
    assert no_thread_is_left()


@CONTAINERS
@pytest.mark.parametrize("garbage", [b"a text file\n" * 500, bytes(20_000), b"\x47" + bytes(187)])
def test_garbage_is_refused(container: Container, garbage: bytes) -> None:
    decoder = ContainerDecoder(container, VideoOptions(LIMIT))
    with pytest.raises(BadVideoError):
        decode_all(decoder, pieces(garbage, 1316))
    decoder.close()
    assert no_thread_is_left()


@ALL
def test_frames_over_the_limit_are_refused(made: Made) -> None:
    decoder = ContainerDecoder(made.container, VideoOptions(128 * 64 - 1))
    with pytest.raises(BadVideoError, match=r"128x64|at most 8191 pixels"):
        decode_all(decoder, [made.stream(3)])
    decoder.close()


@CONTAINERS
def test_an_empty_stream_is_no_error(container: Container) -> None:
    assert decode_all(ContainerDecoder(container, VideoOptions(LIMIT)), []) == []


@ALL
def test_a_truncated_stream_gives_the_frames_before_its_end_and_then_an_error(made: Made) -> None:
    items: list[Decoded] = []
    decoder = ContainerDecoder(made.container, VideoOptions(LIMIT))
    endless = made.container == "mpegts"  # its length is nowhere in it
    with nullcontext() if endless else pytest.raises(BadVideoError, match="too early"):
        items.extend(chain(decode(decoder, [made.stream()[:-100]]), decoder.finish()))
    numbers = [grey(item) for item in items if isinstance(item, DecodedFrame)]
    assert numbers[:5] == list(range(5))
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("size", [5, 1316, 1_000_000])
def test_an_mp4_file_with_its_index_behind_is_stored_until_it_is_complete(size: int) -> None:
    behind = INDEX_BEHIND.stream()
    assert behind.index(b"mdat") < behind.index(b"moov")
    decoder = ContainerDecoder("mp4", VideoOptions(LIMIT))
    assert list(decode(decoder, pieces(behind, size))) == []
    assert [grey(p) for p in decoder.finish()] == list(range(30))
    decoder.close()
    assert no_thread_is_left()


def test_a_stored_mp4_file_has_a_limit() -> None:
    behind = INDEX_BEHIND.stream()
    with pytest.raises(BadVideoError, match="faststart"):
        decode_all(ContainerDecoder("mp4", VideoOptions(LIMIT), max_stored=len(behind) - 1), pieces(behind, 1316))


def test_a_stored_mp4_file_without_its_index_is_refused() -> None:
    behind = INDEX_BEHIND.stream()
    with pytest.raises(BadVideoError, match="no index"):
        decode_all(ContainerDecoder("mp4", VideoOptions(LIMIT)), [behind[: behind.index(b"moov") - 4]])


def test_a_container_without_video_is_refused() -> None:
    with pytest.raises(BadVideoError, match="has no video in it"):
        decode_all(ContainerDecoder("mp4", VideoOptions(LIMIT)), [sound()])


def test_a_video_without_a_key_frame_is_refused_for_that() -> None:
    data = film("mpegts", [textured(n) for n in range(12)], gop=100)
    tables, rest = data[: 3 * 188], data[len(data) // 188 // 3 * 188 :]
    with pytest.raises(BadVideoError, match=r"has no key frame .* in \d+ packets of video$"):
        decode_all(ContainerDecoder("mpegts", VideoOptions(LIMIT)), pieces(tables + rest, 1316))


def test_endless_bytes_without_a_frame_are_refused() -> None:
    decoder = ContainerDecoder("mpegts", VideoOptions(LIMIT), max_without_frame=50_000)
    with pytest.raises(BadVideoError, match="without a frame"):
        list(decode(decoder, [b"\x47\x1f\xff\x10" + bytes(184)] * 1000))  # null packets
    decoder.close()
    assert no_thread_is_left()


def sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options=FRAGMENTED) as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = 8000
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
