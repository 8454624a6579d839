"""An optical flow with a known result: the whole frame moves by the same number of pixels."""

import numpy as np
from numpy.typing import NDArray


class Shift:
    """An optical flow by which everything moved to the right."""

    name = "shift"

    def __init__(self, pixels: int) -> None:
        """Set the distance, in pixels of the network's input. The flow itself is at half of that size."""
        self._flow = -pixels / 2

    def estimate(self, current: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: ARG002
        """See `OpticalFlow`."""
        flow = np.zeros((*current.shape[:2], 2), np.float32)
        flow[..., 0] = self._flow
        return flow
