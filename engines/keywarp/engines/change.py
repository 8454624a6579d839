"""Measure how much of a picture motion can't explain, as a cheap estimate of the error of propagated features.

Propagation moves the content of the key frame to where it is now. The error is therefore not how far things moved, but
what remains after they are moved: objects that turn, areas that they uncover, content that comes into view, a new
scene. This module does on thumbnails what propagation does with features, and measures what remains.

Both measures are from 0 to 1: the mean over the picture of each pixel's difference, in units of the picture's contrast
and clipped at 1. A change in brightness of the whole picture by up to one stop is compensated first. The measures
don't depend on the frame's size, contrast or exposure. `docs/adaptive.md` explains them to users.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

LONG_SIDE = 96  # of a thumbnail, pixels; the cost grows with its square, and the measure hardly improves
SHORT_SIDE = 32  # of a thumbnail at least, pixels; OpenCV's search fails on smaller images
SAMPLES = 4  # samples of the frame per thumbnail pixel and axis; their fixed number keeps large frames cheap
SMOOTHING = (3, 3)  # kernel of the Gaussian that removes the remaining noise, pixels
FINEST_LEVEL = 1  # of the search's pyramid: flow in blocks of 2 pixels; 0 is 4 times as slow and hardly better

MAX_EXPOSURE = 1.4  # largest change in brightness of the whole picture that is compensated, a factor: one stop
MIN_CONTRAST = 4.0  # grey levels; flatter pictures are measured in units of this


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """A small grey copy of a frame for comparing it with others, a few kilobytes."""

    frame_shape: tuple[int, ...]
    grey: NDArray[np.uint8]  # (h, w)
    light: float  # mean, grey levels
    contrast: float  # standard deviation, grey levels

    @classmethod
    def of(cls, frame: NDArray[np.uint8]) -> "Thumbnail":
        """Make the thumbnail of a frame.

        Args:
            frame: The frame, uint8 (H, W, 3), RGB, of any size.
        """
        height, width = frame.shape[:2]
        scale = LONG_SIDE / max(height, width)
        h, w = (max(SHORT_SIDE, round(side * scale)) for side in (height, width))
        sampled = cv2.resize(frame, (w * SAMPLES, h * SAMPLES), interpolation=cv2.INTER_LINEAR)
        small = cv2.resize(sampled, (w, h), interpolation=cv2.INTER_AREA)
        grey = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), SMOOTHING, 0)
        light, contrast = cv2.meanStdDev(grey)
        return cls(frame.shape, np.asarray(grey, dtype=np.uint8), float(light[0, 0]), float(contrast[0, 0]))


def change_after_motion(current: Thumbnail, key: Thumbnail) -> float:
    """Return how much of `current` differs from `key` after motion compensation; what comes into view counts fully."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    search.setFinestScale(FINEST_LEVEL)
    # Without this correction, a change of light would look like motion.
    lit = cv2.convertScaleAbs(key.grey, alpha=_exposure(current.light, key.light))
    flow = search.calc(current.grey, lit, None)  # type: ignore[call-overload]
    height, width = current.grey.shape
    source = _grid(height, width) + flow  # (h, w, 2): x, y in the key frame's thumbnail
    moved: NDArray[np.uint8] = cv2.remap(  # type: ignore[call-overload]
        key.grey, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    x, y = source[..., 0], source[..., 1]
    seen = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    if not seen.any():
        return 1.0
    difference = _difference(current.grey[seen], moved[seen], max(current.contrast, key.contrast))
    return float(1 - seen.mean() * (1 - difference))


def change_without_motion(current: Thumbnail, other: Thumbnail) -> float:
    """Return how much of `current` differs from `other`, without any search for motion."""
    return _difference(current.grey, other.grey, max(current.contrast, other.contrast))


def _difference(current: NDArray[np.uint8], other: NDArray[np.uint8], contrast: float) -> float:
    """Return the mean difference of two sets of pixels, in units of the contrast and clipped at 1."""
    now, before = current.astype(np.float32), other.astype(np.float32)
    exposure = _exposure(float(now.mean()), float(before.mean()))
    return float(np.minimum(np.abs(now - exposure * before) / max(contrast, MIN_CONTRAST), 1).mean())


def _exposure(now: float, before: float) -> float:
    """Return the factor by which the whole picture became lighter, clipped to the range that is compensated."""
    return min(max(now / max(before, 1.0), 1 / MAX_EXPOSURE), MAX_EXPOSURE)


@cache
def _grid(height: int, width: int) -> NDArray[np.float32]:
    """Return the x and y of each pixel, (h, w, 2)."""
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs, ys], axis=-1).astype(np.float32)
