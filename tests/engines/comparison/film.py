"""Clips for the tiny bundle, whose results a test can predict."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.comparison import Clip, ClipFrame
from tests.engines.scenes import scene

FPS = 10
CELLS = 24  # columns of the picture


def clip(images: Sequence[NDArray[np.uint8]], name: str = "film") -> Clip:
    """Return images as a clip."""

    def frames() -> Iterator[ClipFrame]:
        for index, image in enumerate(images):
            yield ClipFrame(image, index, index / FPS)

    return Clip(name, frames, len(images), name)


def walk(frames: int = 12) -> Clip:
    """A red column on a dark background, which moves one cell to the right with each frame."""
    images = []
    for index in range(frames):
        image = np.full((64, 16 * CELLS, 3), 10, np.uint8)
        image[:, 16 * (index + 2) : 16 * (index + 3), 0] = 250
        images.append(image)
    return clip(images, "walk")


def cut(before: int = 10, after: int = 10) -> Clip:
    """A still scene, and after a cut another one."""
    return clip([scene(0)] * before + [scene(1)] * after, "cut")
