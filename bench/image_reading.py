"""Measures what the reader of images costs: `keywarp.images`, and OpenCV into RGB without any checks, in turns.

The image is the first frame of a video, enlarged to 1280x720. A row has the medians over the rounds, in milliseconds of
the processor, and says whether both give the same pixels.

Example: python -m bench.image_reading --rounds 31 --json
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keywarp.client import open_source
from keywarp.commands.sample_video import sample_video
from keywarp.images import decode_image

WIDTH, HEIGHT = 1280, 720
FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {"format": "PNG"},
    "WebP": {"format": "WEBP", "quality": 90},
    "WebP, lossless": {"format": "WEBP", "lossless": True},
    "JPEG": {"format": "JPEG", "quality": 90},
}
Decode = Callable[[bytes], NDArray[np.uint8]]


@dataclass(frozen=True)
class Row:
    """The medians of one format, in milliseconds of the processor."""

    format: str
    opencv: float
    reader: float
    same: bool  # whether both give the same pixels


def opencv(data: bytes) -> NDArray[np.uint8]:
    """Decode with OpenCV."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def measure(name: str, picture: Image.Image, rounds: int) -> Row:
    """Let both decode an image in turns."""
    file = io.BytesIO()
    picture.save(file, **FORMATS[name])
    data = file.getvalue()
    ways: tuple[Decode, ...] = (opencv, decode_image)
    times: list[list[float]] = [[], []]
    for number in range(rounds):
        for way in (0, 1) if number % 2 else (1, 0):  # neither is always the first
            started = time.process_time()
            ways[way](data)
            times[way].append(1000 * (time.process_time() - started))
    first, second = map(statistics.median, times)
    return Row(name, first, second, np.array_equal(opencv(data), decode_image(data)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with open_source(options.video or sample_video()) as source:
        picture = Image.fromarray(next(iter(source)).image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    rows = [measure(name, picture, options.rounds) for name in FORMATS]
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"| ms of the processor, {WIDTH}x{HEIGHT} | OpenCV | reader | same pixels |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.format} | {row.opencv:.1f} | {row.reader:.1f} | {'yes' if row.same else 'no'} |")


if __name__ == "__main__":
    main()
