"""Draw dense maps for the pictures of a comparison."""

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.client.color_map import colorize
from keywarp.engines import DenseMap
from keywarp.engines.comparison.value_agreement import TOLERANCE, value_range

DIMMED = 0.6  # brightness of what agrees
WRONG = (255, 45, 45)  # RGB


def draw_values(image: NDArray[np.uint8], shown: DenseMap, expected: DenseMap) -> NDArray[np.uint8]:
    """Return a map in colours, at a picture's size.

    Args:
        image: The picture, RGB (H, W, 3).
        shown: The map.
        expected: The map whose range the colours have, so that equal colours are equal numbers.
    """
    return colorize(_resized(shown, image), *value_range(expected.values))


def draw_value_difference(image: NDArray[np.uint8], found: DenseMap, expected: DenseMap) -> NDArray[np.uint8]:
    """Return a dark picture in which the places where two maps don't agree are red.

    Args:
        image: The picture, RGB (H, W, 3).
        found: The map to judge.
        expected: The map that counts as the truth.
    """
    low, high = value_range(expected.values)
    first, second = (np.clip(_resized(shown, image), low, high) for shown in (found, expected))
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    dark = (np.asarray(grey, np.float32) * DIMMED).astype(np.uint8)
    differs = np.abs(first - second) > TOLERANCE * (high - low)
    return np.where(differs[..., np.newaxis], np.array(WRONG, np.uint8), dark)


def _resized(shown: DenseMap, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    return np.asarray(cv2.resize(shown.values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
