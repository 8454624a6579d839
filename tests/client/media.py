"""Pictures, videos and results for the tests."""

import io
from base64 import b64encode
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from keywarp.client import ProcessedFrame
from keywarp.protocol import ClassInfo, ClientId, Kind, ModelInfo, Region, Result, Segmentation, Timings
from tests.priority import priority_kept

CLASSES = (
    ClassInfo(id=0, name="background", color=(0, 0, 0)),
    ClassInfo(id=1, name="person", color=(220, 20, 60)),
    ClassInfo(id=2, name="car", color=(30, 120, 250)),
)
MODEL = ModelInfo(
    name="street",
    version="1",
    task="segmentation",
    classes=CLASSES,
    key_interval=10,
    backend="openvino",
    device="cpu",
    precision="fp32",
)


def picture(value: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return a grey picture."""
    return np.full((height, width, 3), value, np.uint8)


def grey_level(frame: int) -> int:
    """Return the grey level that `write_video` gives a frame. Levels differ enough to tell frames apart."""
    return 20 + 10 * (frame % 20)


def write_video(
    path: Path,
    frames: int = 20,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    fps: int = 10,
    gop: int | None = None,
) -> Path:
    """Write a 64x48 video, which has B-frames with libx264.

    Args:
        path: The file's path. Its suffix decides the format.
        frames: The number of frames.
        codec: FFmpeg's name of the encoder.
        options: Options for the muxer.
        fps: Frames per second.
        gop: Frames from one key frame to the next. None means 10 with libx264, and the encoder's default otherwise.
    """
    with priority_kept(), av.open(path, "w", options=options or {}) as container:
        stream = container.add_stream(codec, fps)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.thread_count = 1  # libvpx's threads wait by spinning, for minutes on a busy machine
        if codec == "libx264":
            stream.codec_context.options = {"bf": "2", "b-adapt": "0", "preset": "veryfast"}
            gop = gop or 10
        if gop:
            stream.codec_context.gop_size = gop
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(grey_level(index)))))
        container.mux(stream.encode())
    return path


def write_cut_video(folder: Path) -> Path:
    """Write an MP4 file of 200 frames with its index in front, whose second half is missing."""
    whole = write_video(folder / "whole.mp4", frames=200, options={"movflags": "+faststart"}).read_bytes()
    cut = folder / "cut.mp4"
    cut.write_bytes(whole[: (whole.index(b"mdat") + len(whole)) // 2])
    return cut


def segmentation(labels: NDArray[np.uint8]) -> Segmentation:
    """Return a label map as a server sends it."""
    png = io.BytesIO()
    Image.fromarray(labels).save(png, "PNG")
    regions = tuple(
        Region(class_id=c.id, name=c.name, area=float((labels == c.id).mean()))
        for c in CLASSES[1:]
        if (labels == c.id).any()
    )
    return Segmentation(
        width=labels.shape[1],
        height=labels.shape[0],
        labels_png=b64encode(png.getvalue()).decode(),
        regions=regions,
    )


def result(
    frame: int,
    *,
    id: ClientId | None = None,  # noqa: A002
    timestamp: float | None = None,
    labels: NDArray[np.uint8] | None = None,
    interval: int = 10,
    credit: int | None = None,
) -> Result:
    """Return the result on a 64x48 frame as a server sends it."""
    kind: Kind = "propagated" if frame % interval else "key"
    return Result(
        stream="s",
        frame=frame,
        id=id,
        timestamp=timestamp,
        width=64,
        height=48,
        kind=kind,
        key_age=frame % interval,
        timings=Timings(decode=0.001, queue=0.001, inference=0.01, postprocess=0.001),
        segmentation=None if labels is None else segmentation(labels),
        credit=credit,
    )


def frame_result(frame: int, latency: float | None = 0.02, *, width: int = 64, height: int = 48) -> ProcessedFrame:
    """Return a result with an image and a label map, whose left half is a person."""
    labels = np.zeros((24, 32), np.uint8)
    labels[:, :16] = 1
    return ProcessedFrame(result(frame, labels=labels), picture(128, width, height), latency)
