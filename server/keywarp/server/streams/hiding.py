"""Hide regions of a stream's frames before anything sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.protocol import HiddenRegion


@dataclass(frozen=True)
class Hidden:
    """The hidden regions of a stream, which are black."""

    regions: Sequence[HiddenRegion]

    def cover(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a frame with its hidden regions black.

        Args:
            pixels: The frame, (H, W, 3). It is changed in place, if it can be written to.
        """
        if not self.regions:
            return pixels
        height, width = pixels.shape[:2]
        covered = pixels if pixels.flags.writeable and pixels.flags.c_contiguous else pixels.copy()
        corners = [np.rint(np.array(region) * (width, height)).astype(np.int32) for region in self.regions]
        cv2.fillPoly(covered, corners, (0, 0, 0))
        return covered
