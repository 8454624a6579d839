"""The patterns by which classes are recognised. An object shows a photograph with its class's pattern over it."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

Pattern = Literal["stripes", "dots", "checks", "plain"]
MIDDLE = 128  # the value that leaves the photograph unchanged
_STEEPNESS = np.float32(4)  # gain before saturation, which makes a pattern's edges steep
_DOT_THRESHOLD = np.float32(0.7)  # makes dots smaller than the gaps between them


def draw_pattern(pattern: Pattern, size: int, period: float, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw a pattern of random direction and position.

    Args:
        pattern: The kind of pattern.
        size: The side of the image in pixels.
        period: The pattern's period in pixels.
        random: The random generator.

    Returns:
        The pattern (size, size), from 1 to 255, or 128 everywhere if it is "plain".
    """
    angle, rate = random.uniform(0, math.pi), 2 * math.pi / period
    phases = random.uniform(0, 2 * math.pi, 2).astype(np.float32)
    if pattern == "plain":
        return np.full((size, size), MIDDLE, np.uint8)
    position = np.arange(size, dtype=np.float32)
    across, along = (np.float32(rate * f(angle)) * position for f in (math.cos, math.sin))
    wave = np.sin(across[None] + along[:, None] + phases[0])
    if pattern != "stripes":
        second = np.sin(across[:, None] - along[None] + phases[1])
        wave = wave * second if pattern == "checks" else wave + second - _DOT_THRESHOLD
    return np.asarray(MIDDLE + (MIDDLE - 1) * np.clip(_STEEPNESS * wave, -1, 1), np.uint8)
