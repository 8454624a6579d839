"""Measures what the reader of videos costs: plain PyAV, and `keywarp.videos` with its search for damage, in turns.

Plain PyAV decodes with its default threads, which share the slices of a frame, and converts each frame to RGB; so does
the reader, but on one thread for the codecs whose decoders mark damage only then. The video is encoded anew with each
encoder, 1280x720. A row has the medians over the rounds, in which both take turns.

Example: python -m bench.reading --rounds 7 --json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from keywarp.commands.sample_video import sample_video
from keywarp.videos import Picture, SoftwareDecoder, VideoReader, choose_video, open_container

WIDTH, HEIGHT, RATE = 1280, 720, 25
ENCODERS: dict[str, tuple[str, dict[str, str], str]] = {
    "H.264": ("libx264", {"preset": "veryfast"}, "mp4"),
    "H.264, 4 slices": ("libx264", {"preset": "veryfast", "x264-params": "slices=4"}, "mp4"),
    "HEVC": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=error"}, "mp4"),
    "VP9": ("libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}, "webm"),
    "MJPEG": ("mjpeg", {}, "avi"),
}


@dataclass(frozen=True)
class Row:
    """The medians of one encoder, in milliseconds a frame."""

    encoder: str
    plain: float  # elapsed
    reader: float
    plain_cpu: float  # of the processor, over all threads
    reader_cpu: float


def encode(source: Path, folder: Path, name: str, frames: int) -> Path:
    """Encode the first frames of a video anew."""
    encoder, options, form = ENCODERS[name]
    path = folder / f"{name}.{form}"
    with av.open(path, "w", format=form) as container, open_container(str(source)) as read:
        stream = container.add_stream(encoder, rate=RATE, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        for number, frame in enumerate(islice(read.decode(video=0), frames)):
            scaled = frame.reformat(WIDTH, HEIGHT, stream.pix_fmt)
            scaled.pts, scaled.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(scaled))
        container.mux(stream.encode())
    return path


def plain(path: Path) -> int:
    """Decode with PyAV alone, and return the number of frames."""
    with open_container(str(path)) as container:
        return sum(frame.to_ndarray(format="rgb24").dtype == np.uint8 for frame in container.decode(video=0))


def reader(path: Path) -> int:
    """Decode as the client does, and return the number of frames."""
    with open_container(str(path)) as container:
        stream = choose_video(container)
        items = VideoReader(container, stream, SoftwareDecoder(stream.codec_context, threads=None))
        return sum(isinstance(item, Picture) for item in items)


def timed(decode: Callable[[Path], int], path: Path) -> tuple[float, float]:
    """Return the elapsed and the processor's milliseconds a frame."""
    started, used = time.perf_counter(), time.process_time()
    frames = decode(path)
    return (time.perf_counter() - started) * 1000 / frames, (time.process_time() - used) * 1000 / frames


def measure(name: str, path: Path, rounds: int) -> Row:
    """Let both decode a video in turns."""
    both = []
    for number in range(rounds):
        ways = (plain, reader) if number % 2 else (reader, plain)  # neither is always the first
        found = {way: timed(way, path) for way in ways}
        both.append((found[plain], found[reader]))
    medians = [statistics.median(pair[way][kind] for pair in both) for kind in (0, 1) for way in (0, 1)]
    return Row(name, *medians)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = options.video or sample_video()
        paths = {name: encode(source, Path(folder), name, options.frames) for name in ENCODERS}
        rows = [measure(name, path, options.rounds) for name, path in paths.items()]
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print("| ms a frame, 1280x720 | PyAV | reader | PyAV, processor | reader, processor |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.encoder} | {row.plain:.2f} | {row.reader:.2f} | {row.plain_cpu:.2f} | {row.reader_cpu:.2f} |")


if __name__ == "__main__":
    main()
