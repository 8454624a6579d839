"""The patterns that are typical of classes. What an object shows is a photograph with a pattern over it."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

Pattern = Literal["stripes", "dots", "checks", "plain"]
MIDDLE = 128  # the value that changes nothing
_STEEPNESS = np.float32(4)  # of a pattern's edges: the factor before saturation
_GROUND = np.float32(0.7)  # how much more ground than dots there is


def draw_pattern(pattern: Pattern, size: int, period: float, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A pattern in a random direction and position.

    Args:
        pattern: Which.
        size: Of the picture, pixels.
        period: Of the pattern, pixels.
        random: The source of chance.

    Returns:
        (size, size), from 1 to 255; 128 everywhere if the pattern is "plain".
    """
    angle, rate = random.uniform(0, math.pi), 2 * math.pi / period
    phases = random.uniform(0, 2 * math.pi, 2).astype(np.float32)
    if pattern == "plain":
        return np.full((size, size), MIDDLE, np.uint8)
    place = np.arange(size, dtype=np.float32)
    across, along = (np.float32(rate * f(angle)) * place for f in (math.cos, math.sin))
    wave = np.sin(across[None] + along[:, None] + phases[0])
    if pattern != "stripes":
        second = np.sin(across[:, None] - along[None] + phases[1])
        wave = wave * second if pattern == "checks" else wave + second - _GROUND
    return np.asarray(MIDDLE + (MIDDLE - 1) * np.clip(_STEEPNESS * wave, -1, 1), np.uint8)
