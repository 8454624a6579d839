"""Measures codec motion on generated video whose motion is known, after each of several encoders.

Scenes are drawn from the evaluation photographs (`keywarp.datasets.moving_scenes`), encoded and decoded. Their first
frame is the key frame. Flows are found on images of half the size, as for most models.

Example: python bench/codec.py --scenes 20 --json
"""

import argparse
import io
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from keywarp.datasets.moving_scenes import MovingScenes, SceneOptions
from keywarp.datasets.photographs import photographs, split_photographs
from keywarp.engines.motion import DIS, ChainedTracker, CodecTracker, DirectTracker, MotionTracker, MotionVectors

CACHE = Path(__file__).parents[1] / ".cache" / "keywarp" / "packages"
HEIGHT, WIDTH = 384, 512
SCALE = 2  # objects are as large, compared with the image, as in scenes of 192x256
FRAMES = 10
AGES = (1, 3, 5, 9)
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "H.264, x264's defaults": ("libx264", {}),
    "H.264, zerolatency": ("libx264", {"preset": "veryfast", "tune": "zerolatency"}),
    "MPEG-4": ("mpeg4", {}),
    "MPEG-2, 2 B pictures": ("mpeg2video", {"bf": "2"}),
    "HEVC, x265's defaults": ("libx265", {"x265-params": "log-level=error"}),
}
TRACKERS: dict[str, Callable[[NDArray[np.uint8]], MotionTracker]] = {
    "dis": lambda key: DirectTracker(DIS(), key),
    "dis-chained": lambda key: ChainedTracker(DIS.for_steps(), key),
    "codec, coarse": lambda key: CodecTracker(key, pixels_per_cell=8),  # for features of stride 16
    "codec, fine": lambda key: CodecTracker(key, pixels_per_cell=4),  # of stride 8
}

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Figure:
    """The accuracy and cost of one source on the videos of one encoder."""

    encoder: str
    source: str
    error: float  # mean end-point error over all ages, pixels of the frame
    by_age: dict[int, float]  # the same by key age in frames
    ms: float  # mean processor time of a flow, milliseconds
    decode_ms: float  # mean processor time of decoding a frame to RGB, with vectors for codec motion, milliseconds


def encode(images: Sequence[Image], encoder: str, options: dict[str, str]) -> bytes:
    """Encode a video in Matroska."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(encoder, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if encoder.startswith("mpeg"):
            stream.bit_rate = 4_000_000
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def decode(video: bytes, *, vectors: bool) -> tuple[list[tuple[Image, MotionVectors | None]], float]:
    """Decode a video in one thread. Returns the frames with their vectors, and the processor seconds that it took."""
    frames: list[tuple[Image, MotionVectors | None]] = []
    with av.open(io.BytesIO(video), "r") as container:
        context = container.streams.video[0].codec_context
        context.thread_count = 1
        if vectors:
            context.options = {"flags2": "+export_mvs"}
        started = time.process_time()
        for frame in container.decode(video=0):
            found = None
            if vectors:
                exported = frame.side_data.get("MOTION_VECTORS")
                blocks = None if exported is None else exported.to_ndarray()
                found = MotionVectors.from_ffmpeg(
                    blocks, frame.width, frame.height, int(frame.pict_type), context.codec.canonical_name
                )
            frames.append((np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), found))
        return frames, time.process_time() - started


def shrink(image: Image) -> Image:
    """Return the image at half the size."""
    return np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def measure(scenes: MovingScenes, count: int) -> list[Figure]:
    """Measure all sources on the videos of all encoders."""
    errors = {(e, s): np.zeros((count, FRAMES)) for e in ENCODERS for s in ("none", *TRACKERS)}
    seconds = dict.fromkeys(errors, 0.0)
    decoding = dict.fromkeys(errors, 0.0)
    for number in range(count):
        scene = scenes.scene(number)
        images = [scene.image(float(t)) for t in range(FRAMES)]
        truths = [scene.flow(float(t), 0.0) for t in range(FRAMES)]
        for name, (encoder, options) in ENCODERS.items():
            video = encode(images, encoder, options)
            frames, with_vectors = decode(video, vectors=True)
            _, without = decode(video, vectors=False)
            smalls = [shrink(image) for image, _ in frames]
            if not any(seconds.values()):  # the first time warms up
                for open_tracker in TRACKERS.values():
                    open_tracker(smalls[0]).advance(smalls[1], (frames[1][1],))
            for source, open_tracker in TRACKERS.items():
                tracker = open_tracker(smalls[0])
                decoding[name, source] += with_vectors if source.startswith("codec") else without
                for age in range(1, FRAMES):
                    started = time.process_time()
                    flow = tracker.advance(smalls[age], (frames[age][1],))
                    seconds[name, source] += time.process_time() - started
                    full = 2 * cv2.resize(flow, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
                    errors[name, source][number, age] = np.linalg.norm(full - truths[age], axis=-1).mean()
            for age in range(1, FRAMES):
                errors[name, "none"][number, age] = np.linalg.norm(truths[age], axis=-1).mean()
            decoding[name, "none"] += without
    return [
        Figure(
            encoder=encoder,
            source=source,
            error=float(found[:, 1:].mean()),
            by_age={age: float(found[:, age].mean()) for age in AGES},
            ms=1e3 * seconds[encoder, source] / (count * (FRAMES - 1)),
            decode_ms=1e3 * decoding[encoder, source] / (count * FRAMES),
        )
        for (encoder, source), found in errors.items()
    ]


def main() -> None:
    """Print the table or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--scenes", type=int, default=20, help="generated scenes (default: 20)")
    arguments = parser.parse_args()

    cv2.setNumThreads(1)
    _, evaluation = split_photographs(photographs(CACHE))
    options = SceneOptions(
        height=HEIGHT,
        width=WIDTH,
        diameter=(36 * SCALE, 110 * SCALE),
        speed=(0.6 * SCALE, 4.0 * SCALE),
        acceleration=0.06 * SCALE,
        camera_speed=(0.2 * SCALE, 2.0 * SCALE),
    )
    figures = measure(MovingScenes(evaluation, options, seed=3, size=arguments.scenes), arguments.scenes)
    conditions = {"width": WIDTH, "height": HEIGHT, "scenes": arguments.scenes, "machine": platform.processor()}
    if arguments.json:
        print(json.dumps({**conditions, "figures": [asdict(figure) for figure in figures]}))
        return
    print(f"{arguments.scenes} generated scenes of {FRAMES} frames, {WIDTH}x{HEIGHT}, one thread")
    print("end-point error in pixels of the frame: mean, and at ages " + ", ".join(map(str, AGES)))
    print("processor time a frame: of the flow, and of decoding")
    for figure in figures:
        ages = " ".join(f"{figure.by_age[age]:6.2f}" for age in AGES)
        costs = f"{figure.ms:6.2f} ms {figure.decode_ms:6.2f} ms"
        print(f"{figure.encoder:<24} {figure.source:<14} {figure.error:6.2f}  {ages}  {costs}")


if __name__ == "__main__":
    main()
