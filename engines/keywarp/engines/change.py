"""How much of a picture motion can't explain: a cheap sign of how wrong propagated features are.

Propagation moves what the key frame showed to where it is now. So the error that matters is not how far things moved,
but what is left when they are moved back: objects that turn, what they uncover, what comes into view, another scene.
This module measures it as propagation does it, on thumbnails.

Both measures are shares, 0 to 1: the mean over the picture of each pixel's difference in units of the picture's
contrast, at most 1. If the picture got lighter or darker as a whole, up to one stop, that is taken out first. So they
don't depend on the frame's size, its contrast or its exposure. `docs/adaptive.md` explains them to users.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

LONG_SIDE = 96  # of a thumbnail, pixels: costs grow with its square, and the measure hardly gains
SHORT_SIDE = 32  # at least, however long the frame is: on smaller images OpenCV's search fails
SAMPLES = 4  # of the frame that a thumbnail's pixel averages either way: so large frames cost little more
SMOOTHING = (3, 3)  # pixels of the Gaussian that takes away what is left of noise
FINEST_LEVEL = 1  # of the search's pyramid: flow in blocks of 2 pixels; 0 takes four times as long and gains little

MOST_LIGHT = 1.4  # the factor by which a picture may get lighter or darker as a whole unnoticed: one stop of a camera
LEAST_CONTRAST = 4.0  # grey levels: in flatter pictures differences are measured against this


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """What is kept of a frame to compare others with: a few kilobytes."""

    frame_shape: tuple[int, ...]
    grey: NDArray[np.uint8]  # (h, w)
    light: float  # mean, grey levels
    contrast: float  # standard deviation, grey levels

    @classmethod
    def of(cls, frame: NDArray[np.uint8]) -> "Thumbnail":
        """Make a frame's thumbnail.

        Args:
            frame: uint8 (H, W, 3), RGB, of any size.
        """
        height, width = frame.shape[:2]
        scale = LONG_SIDE / max(height, width)
        h, w = (max(SHORT_SIDE, round(side * scale)) for side in (height, width))
        sampled = cv2.resize(frame, (w * SAMPLES, h * SAMPLES), interpolation=cv2.INTER_LINEAR)
        small = cv2.resize(sampled, (w, h), interpolation=cv2.INTER_AREA)
        grey = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), SMOOTHING, 0)
        light, contrast = cv2.meanStdDev(grey)
        return cls(frame.shape, np.asarray(grey, dtype=np.uint8), float(light[0, 0]), float(contrast[0, 0]))


def moved_share(current: Thumbnail, key: Thumbnail) -> float:
    """How much of `current` isn't `key` with its parts moved. What comes from out of view counts whole."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    search.setFinestScale(FINEST_LEVEL)
    lit = cv2.convertScaleAbs(key.grey, alpha=_exposure(current.light, key.light))  # or light would pass for motion
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


def still_share(current: Thumbnail, other: Thumbnail) -> float:
    """How much of `current` isn't `other` as it is: nothing is searched for."""
    return _difference(current.grey, other.grey, max(current.contrast, other.contrast))


def _difference(current: NDArray[np.uint8], other: NDArray[np.uint8], contrast: float) -> float:
    """The mean difference of two sets of pixels, each in units of the contrast and at most 1."""
    now, before = current.astype(np.float32), other.astype(np.float32)
    exposure = _exposure(float(now.mean()), float(before.mean()))
    return float(np.minimum(np.abs(now - exposure * before) / max(contrast, LEAST_CONTRAST), 1).mean())


def _exposure(now: float, before: float) -> float:
    """The factor by which a picture got lighter as a whole, as far as that goes unnoticed."""
    return min(max(now / max(before, 1.0), 1 / MOST_LIGHT), MOST_LIGHT)


@cache
def _grid(height: int, width: int) -> NDArray[np.float32]:
    """(h, w, 2): each pixel's x, y."""
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs, ys], axis=-1).astype(np.float32)
