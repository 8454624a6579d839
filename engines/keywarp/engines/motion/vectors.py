"""The motion vectors of one decoded frame, as a video decoder exports them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class MotionVectors:
    """The blocks of one frame that the encoder predicted from other frames."""

    height: int  # of the frame, pixels
    width: int  # of the frame, pixels
    # (n, 7): x, y, width, height, (dx, dy) to the source, all in pixels; and the source, -1 past or 1 future
    blocks: NDArray[np.float32]
