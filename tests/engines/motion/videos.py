"""Small real videos of known motion, and the vectors that FFmpeg's decoder exports for them."""

import io

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from keywarp.engines.motion import MotionVectors

Image = NDArray[np.uint8]
Decoded = tuple[Image, MotionVectors | None]

HEIGHT, WIDTH = 96, 160
B_FRAMES = {"x264-params": "bframes=3:b-adapt=0:scenecut=0:ref=3"}  # three B pictures between P pictures
NO_B_FRAMES = {"tune": "zerolatency"}


def texture(height: int = HEIGHT, width: int = 480) -> Image:
    """Return a smooth random picture, wider than the frames that are cut from it."""
    grid = np.random.default_rng(3).integers(40, 216, (height // 6 + 1, width // 6 + 1, 3), np.uint8)
    enlarged = grid.repeat(6, 0).repeat(6, 1)[:height, :width]
    return np.ascontiguousarray(enlarged)


def pan(count: int, step: int, height: int = HEIGHT, width: int = WIDTH) -> list[Image]:
    """Return frames whose content moves to the right by `step` pixels a frame."""
    wide = texture(height, width + step * count)
    return [np.ascontiguousarray(wide[:, x : x + width]) for x in (step * (count - 1 - i) for i in range(count))]


def decoded(frames: list[Image], encoder: str = "libx264", options: dict[str, str] | None = None) -> list[Decoded]:
    """Encode frames and decode them, with their motion vectors."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(encoder, rate=25, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as reader:
        context = reader.streams.video[0].codec_context
        context.options = {"flags2": "+export_mvs"}
        return [
            (np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), vectors_of(frame, context.codec.canonical_name))
            for frame in reader.decode(video=0)
        ]


def vectors_of(frame: av.VideoFrame, codec: str) -> MotionVectors | None:
    exported = frame.side_data.get("MOTION_VECTORS")
    blocks = None if exported is None else exported.to_ndarray()
    return MotionVectors.from_ffmpeg(blocks, frame.width, frame.height, int(frame.pict_type), codec)
