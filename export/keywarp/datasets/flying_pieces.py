"""Pieces of photographs that move over photographs: a replacement for Flying Chairs.

As in Flying Chairs, everything moves by its own affine transformation and nothing bends. A flow network can learn flow
from it, but not the motion of real video. Brightness, colours and noise vary between images as in the training of
FlowNet ("FlowNet: Learning Optical Flow with Convolutional Networks", Dosovitskiy et al., 2015, section 4.3), here also
between the two images of a pair.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.errors import DataError
from keywarp.datasets.images import scale_image
from keywarp.datasets.motion import SyntheticMotion, synthetic_pair
from keywarp.datasets.samples import FlowPair
from keywarp.datasets.types import Image

PIECES = 3  # number of photographs that a sample's pieces are cut from
LIGHT = 0.12  # standard deviation of the logarithm of the change in brightness between the images
TINT = 0.04  # standard deviation of the logarithm of a further change in each colour
NOISE = 6.0  # grey levels: maximum standard deviation of the noise


class FlyingPieces:
    """Any number of image pairs with exactly known motion."""

    def __init__(self, photographs: Sequence[Image], height: int, width: int, motion: SyntheticMotion) -> None:
        """Set up the drawing of pairs.

        Args:
            photographs: Photographs of any size.
            height: The images' height in pixels.
            width: The images' width in pixels.
            motion: The size of the motion.

        Raises:
            DataError: If there are no photographs.
        """
        if not photographs:
            raise DataError("flying pieces are cut from photographs; give at least one")
        self._photographs = [_shrink(photograph, 2 * height, 2 * width) for photograph in photographs]
        self._size = (height, width)
        self._motion = motion

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw two images and the motion between them."""
        background, *pieces = (self._crop(random) for _ in range(1 + PIECES))
        current, key, flow = synthetic_pair(background, pieces, self._motion, random)
        change = np.exp((random.normal(0, LIGHT) + random.normal(0, TINT, 3)) / 2)
        noise = random.uniform(0, NOISE)
        return FlowPair(_expose(current, change, noise, random), _expose(key, 1 / change, noise, random), flow)

    def _crop(self, random: np.random.Generator) -> Image:
        """Crop a random part of a photograph, of at least half the largest possible size, and resize it."""
        photograph = self._photographs[int(random.integers(len(self._photographs)))]
        height, width = self._size
        part = min(photograph.shape[0] / height, photograph.shape[1] / width) * random.uniform(0.5, 1)
        rows, columns = round(part * height), round(part * width)
        top = int(random.integers(photograph.shape[0] - rows + 1))
        left = int(random.integers(photograph.shape[1] - columns + 1))
        crop = photograph[top : top + rows, left : left + columns]
        return np.asarray(cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _expose(picture: Image, light: npt.NDArray[np.float64], noise: float, random: np.random.Generator) -> Image:
    """Multiply an image by the light's colour (3,) and add noise of the given standard deviation."""
    grain = random.standard_normal(picture.shape, np.float32) * np.float32(noise)
    return np.asarray(np.clip(picture * light.astype(np.float32) + grain, 0, 255), np.uint8)


def _shrink(photograph: Image, height: int, width: int) -> Image:
    """Shrink a photograph as far as it still covers an image of this size."""
    factor = min(1.0, max(height / photograph.shape[0], width / photograph.shape[1]))
    return scale_image(photograph, factor)
