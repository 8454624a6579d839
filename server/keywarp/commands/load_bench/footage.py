"""What cameras send, made before anything is measured."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.client import open_source
from keywarp.client.images import encode_jpeg
from keywarp.commands.load_generator import BenchCodec, make_payloads

FRAMES = 250  # of the clip that cameras repeat
GROUP_SECONDS = 2  # from one intra picture to the next, as in most cameras


def make_footage(video: Path, codec: BenchCodec, size: tuple[int, int] | None, fps: float) -> list[bytes]:
    """Make one payload for each frame of a video.

    Args:
        video: The video.
        codec: `image` makes JPEGs; `h264` makes packets.
        size: Width and height to which frames are scaled first. H.264 is then encoded anew, as cameras encode:
            without B pictures, and with an intra picture every two seconds. None leaves frames, and H.264's packets, as
            they are stored.
        fps: Frames a second.

    Raises:
        SourceError: The video can't be read, or isn't H.264 and has to be.
    """
    if size is None:
        return make_payloads(video, codec, FRAMES)
    with open_source(video, upright=False) as source:
        frames = [
            np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
            for frame, _ in zip(source, range(FRAMES), strict=False)
        ]
    return [encode_jpeg(frame, 90) for frame in frames] if codec == "image" else encode_h264(frames, fps)


def encode_h264(frames: Sequence[NDArray[np.uint8]], fps: float) -> list[bytes]:
    """Encode frames, RGB (H, W, 3), as one packet each. The first is intra coded, so the packets can be repeated."""
    with av.open(io.BytesIO(), "w", format="h264") as container:
        options = {"preset": "veryfast", "tune": "zerolatency", "profile": "main"}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", max(1, round(GROUP_SECONDS * fps))
        packets: list[bytes] = []
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            packets += [bytes(packet) for packet in stream.encode(frame)]
        return packets + [bytes(packet) for packet in stream.encode(None)]
