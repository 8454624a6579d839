"""Hide regions of a stream's frames before anything sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from keywarp.engines.frames import Frame
from keywarp.protocol import HiddenRegion


@dataclass(frozen=True)
class Hidden:
    """The hidden regions of a stream, which are black."""

    regions: Sequence[HiddenRegion]

    def cover(self, frame: Frame) -> Frame:
        """Return a frame with its hidden regions black.

        Args:
            frame: The frame, (H, W, 3). It is changed in place, if it can be written to. One on the GPU comes to the
                host.
        """
        if not self.regions:
            return frame
        pixels = np.asarray(frame)
        height, width = pixels.shape[:2]
        covered = pixels if pixels.flags.writeable and pixels.flags.c_contiguous else pixels.copy()
        corners = [np.rint(np.array(region) * (width, height)).astype(np.int32) for region in self.regions]
        cv2.fillPoly(covered, corners, (0, 0, 0))
        return covered
