"""The interface of optical flow: two images in, a backward flow out."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.errors import InvalidFrameError


class OpticalFlow(Protocol):
    """A hand-crafted flow function F (Eq. 2); "any flow function is readily applicable" (section 3).

    The streams of an engine share it and may call it from several threads at once.
    """

    @property
    def name(self) -> str:
        """The name of the method and its settings, such as `dis`."""
        ...

    def estimate(self, current: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Estimate where the pixels of the current image come from.

        Args:
            current: The current image, uint8 (H, W, 3), RGB.
            key: The key frame's image, uint8 (H, W, 3), RGB.

        Returns:
            The flow, (H, W, 2), (dx, dy) in pixels: pixel p of `current` comes from p + flow(p) in `key`.

        Raises:
            InvalidFrameError: If the images aren't 8-bit RGB or differ in size.
        """
        ...


def check_pair(current: NDArray[np.uint8], key: NDArray[np.uint8]) -> None:
    """Check a pair of images.

    Raises:
        InvalidFrameError: If an image isn't uint8 (H, W, 3) with at least one pixel, or the two differ in size.
    """
    for image in (current, key):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise InvalidFrameError(
                f"optical flow needs RGB images (uint8, shape (H, W, 3)), got {image.dtype} {image.shape}"
            )
    if current.shape != key.shape:
        raise InvalidFrameError(
            f"optical flow needs two images of the same size, got {current.shape[:2]} and {key.shape[:2]}"
        )
