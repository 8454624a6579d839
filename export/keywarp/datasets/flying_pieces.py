"""Pieces of photographs that fly over photographs: what takes the place of Flying Chairs where these can't be had.

As there, everything moves by an affine transformation of its own, and nothing bends: motion to learn flow from, but not
that of any video. The images are relit and made noisy as FlowNet's were in training ("FlowNet: Learning Optical Flow
with Convolutional Networks", Dosovitskiy et al., 2015, section 4.3), here each a little otherwise.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.errors import DataError
from keywarp.datasets.motion import SyntheticMotion, synthetic_pair
from keywarp.datasets.samples import FlowPair
from keywarp.datasets.types import Image

PIECES = 3  # photographs that a sample's pieces are cut from
LIGHT = 0.12  # standard deviation of the change of light between the images, in the logarithm
TINT = 0.04  # the same of each colour besides
NOISE = 6.0  # grey levels: highest standard deviation of the noise


class FlyingPieces:
    """Pairs of images with exactly known motion, without end."""

    def __init__(self, photographs: Sequence[Image], height: int, width: int, motion: SyntheticMotion) -> None:
        """Prepare to draw.

        Args:
            photographs: Of any size.
            height: Of the images, pixels.
            width: Of the images, pixels.
            motion: How far things move.

        Raises:
            DataError: There are no photographs.
        """
        if not photographs:
            raise DataError("flying pieces are cut from photographs: give at least one")
        self._photographs = [_shrunk(photograph, 2 * height, 2 * width) for photograph in photographs]
        self._size = (height, width)
        self._motion = motion

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw one."""
        background, *pieces = (self._crop(random) for _ in range(1 + PIECES))
        current, key, flow = synthetic_pair(background, pieces, self._motion, random)
        change = np.exp((random.normal(0, LIGHT) + random.normal(0, TINT, 3)) / 2)
        noise = random.uniform(0, NOISE)
        return FlowPair(_expose(current, change, noise, random), _expose(key, 1 / change, noise, random), flow)

    def _crop(self, random: np.random.Generator) -> Image:
        """A part of a photograph, as large as it may be."""
        photograph = self._photographs[int(random.integers(len(self._photographs)))]
        height, width = self._size
        part = min(photograph.shape[0] / height, photograph.shape[1] / width) * random.uniform(0.5, 1)
        rows, columns = round(part * height), round(part * width)
        top = int(random.integers(photograph.shape[0] - rows + 1))
        left = int(random.integers(photograph.shape[1] - columns + 1))
        crop = photograph[top : top + rows, left : left + columns]
        return np.asarray(cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _expose(picture: Image, light: npt.NDArray[np.float64], noise: float, random: np.random.Generator) -> Image:
    """A picture in other light (3,), with noise of that standard deviation."""
    grain = random.standard_normal(picture.shape, np.float32) * np.float32(noise)
    return np.asarray(np.clip(picture * light.astype(np.float32) + grain, 0, 255), np.uint8)


def _shrunk(photograph: Image, height: int, width: int) -> Image:
    """Just large enough to hold a picture of this size."""
    factor = min(1.0, max(height / photograph.shape[0], width / photograph.shape[1]))
    size = (round(photograph.shape[1] * factor), round(photograph.shape[0] * factor))
    return np.asarray(cv2.resize(photograph, size, interpolation=cv2.INTER_AREA), np.uint8)
