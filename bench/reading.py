"""Measures what the reader of videos costs: plain PyAV, and `keywarp.videos` with its search for damage, in turns.

Plain PyAV decodes with its default threads, which share the slices of a frame, and converts each frame to RGB; so does
the reader, but on one thread for the codecs whose decoders mark damage only then. The video is encoded anew with each
encoder, 1280x720. A row has the medians over the rounds, in which both take turns.

A second table has what following the structure of containers costs, and the counters of a transport stream: of a file,
and as the server does it, with bytes that come in pieces.

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
from keywarp.videos import (
    Continuity,
    Extent,
    Picture,
    SoftwareDecoder,
    VideoReader,
    choose_video,
    file_extent,
    open_container,
)
from keywarp.videos.continuity import FileContinuity

PIECE = 64 * 2**10  # bytes
CONTAINERS = {"MP4, fragmented": "mp4", "Matroska": "matroska", "FLV": "flv", "MPEG-TS": "mpegts"}
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


@dataclass(frozen=True)
class Check:
    """What following the structure of a container costs, in milliseconds of the processor for 10 MB: medians."""

    container: str
    packets: float  # in 10 MB
    file: float
    pieces: float
    reader: float  # decoding included


def copied(source: Path, folder: Path, name: str) -> Path:
    """Copy a video's packets into another container."""
    path = folder / f"{name}.{CONTAINERS[name]}"
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if CONTAINERS[name] == "mp4" else {}
    with (
        open_container(str(source)) as read,
        av.open(path, "w", format=CONTAINERS[name], options=options) as container,
    ):
        stream = container.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    return path


def in_file(path: Path) -> None:
    """Follow the structure of a file."""
    if path.suffix == ".mpegts":
        FileContinuity(path).joined(0, path.stat().st_size)
    else:
        file_extent(path)


def in_pieces(path: Path) -> None:
    """Follow the structure of a stream."""
    extent, continuity = Extent(), Continuity() if path.suffix == ".mpegts" else None
    data = memoryview(path.read_bytes())
    for start in range(0, len(data), PIECE):
        extent.feed(data[start : start + PIECE])
        if continuity:
            continuity.feed(data[start : start + PIECE])
            continuity.joined(start, start + PIECE)


def check(name: str, path: Path, frames: int, rounds: int) -> Check:
    """Measure the ways in turns."""
    share = 1e7 / path.stat().st_size
    times: dict[Callable[[Path], object], list[float]] = {in_file: [], in_pieces: [], reader: []}
    for _ in range(rounds):
        for way, found in times.items():
            used = time.process_time()
            way(path)
            found.append((time.process_time() - used) * 1000 * share)
    return Check(name, frames * share, *(statistics.median(found) for found in times.values()))


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
        copies = {name: copied(paths["H.264"], Path(folder), name) for name in CONTAINERS}
        checks = [check(name, path, options.frames, options.rounds) for name, path in copies.items()]
    if options.json:
        print(json.dumps([*map(asdict, rows), *map(asdict, checks)]))
        return
    print("| ms a frame, 1280x720 | PyAV | reader | PyAV, processor | reader, processor |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.encoder} | {row.plain:.2f} | {row.reader:.2f} | {row.plain_cpu:.2f} | {row.reader_cpu:.2f} |")
    print("\n| processor's ms for 10 MB | packets | structure, file | structure, in pieces | reader |")
    print("| --- | --- | --- | --- | --- |")
    for found in checks:
        figures = f"{found.packets:.0f} | {found.file:.1f} | {found.pieces:.1f} | {found.reader:.0f}"
        print(f"| {found.container} | {figures} |")


if __name__ == "__main__":
    main()
