"""Synthetic streams of textured scenes: still, panned, under changing light."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 80, 160


def scene(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Make a picture with structure at all scales, like a photograph."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for cell in (4, 16, 64):
        grid = random.normal(0, cell**0.5, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        picture += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    contrast = 40 / float(picture.std())
    levels = (110 + contrast * (picture - float(picture.mean()))).clip(0, 255)
    return np.asarray(levels, dtype=np.uint8)


def still(count: int, seed: int = 0, noise: float = 0.0) -> Iterator[NDArray[np.uint8]]:
    """Yield frames of a camera that stands still, with noise of a standard deviation in grey levels."""
    random, picture = np.random.default_rng(seed), scene(seed)
    for _ in range(count):
        yield (picture + random.normal(0, noise, picture.shape)).round().clip(0, 255).astype(np.uint8)


def pan(count: int, speed: float, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Yield frames of a camera that pans by `speed` pixels per frame."""
    wide = scene(seed, width=WIDTH + int(count * abs(speed)) + 1)
    for index in range(count):
        left = int(index * speed)
        yield np.ascontiguousarray(wide[:, left : left + WIDTH])


def lighter(picture: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Return the picture with its brightness multiplied by a factor."""
    return (picture.astype(np.float32) * factor).round().clip(0, 255).astype(np.uint8)
