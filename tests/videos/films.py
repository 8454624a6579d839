"""Make small videos like those that people reported in public trackers. Frame N is grey 16 + 9 N."""

import io
import struct
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from keywarp.videos import open_container

WIDTH, HEIGHT = 64, 48
FPS = 25
FRAMES = 24
GOP = 8
TS_PACKET = 188
OPEN_GROUPS = {"bf": "2", "x264-params": "open-gop=1:keyint=8:min-keyint=8:b-adapt=0:scenecut=0"}
B_FRAMES = {"bf": "3", "b-adapt": "0"}
FASTSTART = {"movflags": "+faststart"}


def grey(number: int) -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), 16 + 9 * number, np.uint8)


def number_of(image: NDArray[np.uint8] | None) -> int:
    """Read a frame's number off its pixels."""
    assert image is not None
    return round((float(image.mean()) - 16) / 9)


def textured(number: int) -> NDArray[np.uint8]:
    """Make a frame whose packets aren't small."""
    return np.random.default_rng(number).integers(0, 256, (HEIGHT * 2, WIDTH * 2, 3), np.uint8)


def red_and_green() -> NDArray[np.uint8]:
    """Make a frame of 128x64 whose left quarter is red, and whose last quarter is green in its upper half."""
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, :32] = 250, 20, 20
    image[:32, 96:] = 20, 250, 20
    return image


def film(
    form: str = "mp4",
    frames: list[NDArray[np.uint8]] | None = None,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    gop: int = GOP,
    times: list[int] | None = None,
    turn: int = 0,
    flip: bool = False,
    aspect: Fraction | None = None,
    edit: Callable[[Any], None] | None = None,
) -> bytes:
    """Encode a video.

    Args:
        form: The container's format.
        frames: The frames, RGB (H, W, 3); by default 24 grey ones.
        codec: FFmpeg's name of the encoder.
        options: Options of the encoder. Without any, there are no B-frames.
        muxing: Options of the muxer.
        gop: Frames from one key frame to the next.
        times: When the frames are shown, in hundredths of a second; by default at 25 fps.
        turn: The degrees of the display matrix, counter-clockwise.
        flip: Whether the display matrix mirrors left and right.
        aspect: The width of a pixel relative to its height.
        edit: Changes each packet before it is written.
    """
    pictures = [grey(number) for number in range(FRAMES)] if frames is None else frames
    with (
        tempfile.NamedTemporaryFile() as file,  # in memory, no index can be moved to the front
        av.open(file.name, "w", format=form, options=muxing or {}) as container,
    ):
        stream = container.add_stream(codec, rate=FPS)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        context = stream.codec_context
        context.gop_size = gop
        if codec == "libx264":
            context.options = {"bf": "0", "crf": "10", "preset": "veryfast", "sc_threshold": "0"} | (options or {})
        if times:
            context.time_base = Fraction(1, 100)
        if aspect:
            context.sample_aspect_ratio = aspect
        if turn or flip:
            stream.set_display_rotation(turn, hflip=flip)
        for number, pixels in enumerate([*pictures, None]):
            frame = None
            if pixels is not None:
                frame = av.VideoFrame.from_ndarray(pixels).reformat(format=stream.pix_fmt)
                frame.pts = times[number] if times else number
                frame.time_base = Fraction(1, 100) if times else Fraction(1, FPS)
            for packet in stream.encode(frame):
                if edit:
                    edit(packet)
                container.mux(packet)
        container.close()
        return Path(file.name).read_bytes()


def copied(data: bytes, form: str, shift: int = 0) -> bytes:
    """Copy the packets of a video into another container, `shift` frames earlier.

    Packets before 0 then come into an edit list of MP4: they are only needed to decode others.
    """
    file = io.BytesIO()
    with open_container(io.BytesIO(data)) as source, av.open(file, "w", format=form) as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        assert stream.time_base
        back = round(shift / FPS / stream.time_base)
        for packet in source.demux(stream):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - back, packet.dts - back, copy
                container.mux(packet)
    return file.getvalue()


def cut(data: bytes, form: str, packets: int, start: int = 0) -> bytes:
    """Copy the packets of a video into another container without the first ones, as `ffmpeg -ss -c copy` does.

    Args:
        data: The video.
        form: The container's format.
        packets: How many are left out.
        start: The time in frames at which the first of the others is shown.
    """
    file = io.BytesIO()
    with open_container(io.BytesIO(data)) as source, av.open(file, "w", format=form) as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        assert stream.time_base
        kept = [p for p in source.demux(stream) if p.size][packets:]
        assert kept[0].is_keyframe
        assert kept[0].pts is not None
        move = round(start / FPS / stream.time_base) - kept[0].pts
        for packet in kept:
            assert packet.pts is not None
            assert packet.dts is not None
            packet.pts, packet.dts, packet.stream = packet.pts + move, packet.dts + move, copy
            container.mux(packet)
    return file.getvalue()


def with_cover(*, film_too: bool) -> bytes:
    """Make an MP4 with a cover picture, which is its first video, and with a film or else only with sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        if film_too:
            stream = container.add_stream("libx264", rate=FPS, options={"bf": "0"})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        else:
            sound = container.add_stream("aac", rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        assert isinstance(cover, VideoStream)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8)).reformat(format="yuvj420p")
        if film_too:
            for number in range(FRAMES):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(number))))
            container.mux(stream.encode())
        else:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate = 44100
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
    return _cover_first(file.getvalue())


def two_videos(form: str = "matroska") -> bytes:
    """Encode 5 frames of 64x48, from grey frame 0 on, and beside them 5 of 128x48, from grey frame 10 on."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        streams = [container.add_stream("libx264", rate=FPS, options={"bf": "0"}) for _ in range(2)]
        for stream, width in zip(streams, (64, 128), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, HEIGHT, "yuv420p"
        for stream, width, first in zip(streams, (64, 128), (0, 10), strict=True):
            for number in range(first, first + 5):
                pixels = np.full((HEIGHT, width, 3), 16 + 9 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
            container.mux(stream.encode())
    return file.getvalue()


def _cover_first(data: bytes) -> bytes:
    """Move the box with the cover before those of the tracks, so that FFmpeg finds it first."""
    start, size, _ = next(box for box in boxes(data) if box[2] == b"moov")
    inner = [(data[at : at + length], kind) for at, length, kind in boxes(data, start + 8, start + size)]
    inner.sort(key=lambda box: [b"mvhd", b"udta"].index(box[1]) if box[1] in (b"mvhd", b"udta") else 2)
    return data[: start + 8] + b"".join(content for content, _ in inner) + data[start + size :]


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Go through the boxes of an MP4: place, size, type."""
    while start < (len(data) if end is None else end):
        size, kind = struct.unpack_from(">I4s", data, start)
        yield start, size, kind
        start += size


def spoiled(data: bytes, packet: int, keep: int = 4) -> bytes:
    """Overwrite the content of one packet after its first bytes."""
    with open_container(io.BytesIO(data)) as container:
        found = [(p.pos, p.size) for p in container.demux(video=0) if p.size][packet]
    place, size = found
    assert place is not None
    return data[: place + keep] + b"\xff" * (size - keep) + data[place + size :]


def without(data: bytes, first: int, count: int) -> bytes:
    """Leave out packets of a transport stream, by their place in the file."""
    return data[: first * TS_PACKET] + data[(first + count) * TS_PACKET :]


def video_packets(data: bytes) -> list[int]:
    """Return the places of the video's packets in a transport stream."""
    return [
        place
        for place in range(len(data) // TS_PACKET)
        if int.from_bytes(data[place * TS_PACKET + 1 : place * TS_PACKET + 3]) & 0x1FFF == 0x100
    ]


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
