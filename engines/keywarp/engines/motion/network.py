"""A bundle's flow network as optical flow between any two images, for flow that is chained from frame to frame."""

from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends import Program
from keywarp.engines.fusion import CURRENT, FLOW, KEY
from keywarp.engines.motion.cells import to_pixels
from keywarp.engines.placement import Placement


class NetworkFlow:
    """The bundle's flow network as optical flow between images that motion is estimated on."""

    name = "flow"

    def __init__(self, program: Program, lock: Lock, pixels_per_cell: int, placement: Placement, stride: int) -> None:
        self._program = program
        self._lock = lock
        self._pixels_per_cell = pixels_per_cell
        self._placement = placement
        self._cells = placement.cells(stride)
        rows, columns = self._cells
        self._above, self._left = rows.start * pixels_per_cell, columns.start * pixels_per_cell
        downscale = stride // pixels_per_cell
        self._height, self._width = (-(-side // downscale) for side in placement.size)

    def estimate(self, current: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `OpticalFlow.estimate`."""
        images = {CURRENT: self._surround(current), KEY: self._surround(key)}
        with self._lock:
            cells = np.asarray(self._program.run(images)[FLOW])[:, :, *self._cells]
            return to_pixels(cells, self._pixels_per_cell, *current.shape[:2])

    def _surround(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image, with its border repeated up to the size that the network takes."""
        if self._placement.is_padded:
            below, right = self._height - self._above - image.shape[0], self._width - self._left - image.shape[1]
            surrounded = cv2.copyMakeBorder(image, self._above, below, self._left, right, cv2.BORDER_REPLICATE)
            image = np.asarray(surrounded, dtype=np.uint8)
        return image[np.newaxis]
