"""Which way up a picture is: the display matrix of videos, in the numbers that EXIF has for the orientation of images.

| number | turns the stored picture upright                     |
| ------ | ---------------------------------------------------- |
| 1      | as it is                                             |
| 2      | mirror left and right                                |
| 3      | rotate by 180 degrees                                |
| 4      | mirror top and bottom                                |
| 5      | transpose: swap rows and columns                     |
| 6      | rotate by 90 degrees clockwise                       |
| 7      | transpose along the other diagonal                   |
| 8      | rotate by 90 degrees counter-clockwise               |
"""

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

UPRIGHT: Final = 1
_STRAIGHT: Final = {(1, 1): 1, (-1, 1): 2, (-1, -1): 3, (1, -1): 4}  # by the signs of a and d
_SIDEWAYS: Final = {(1, 1): 5, (1, -1): 6, (-1, -1): 7, (-1, 1): 8}  # by the signs of b and c


def orientation_of(matrix: bytes) -> int:
    """Return the orientation that a display matrix stands for, or the nearest one.

    Args:
        matrix: Nine 32-bit numbers in the machine's byte order, as FFmpeg's `AV_FRAME_DATA_DISPLAYMATRIX`: a pixel at
            (x, y) is shown at (a x + c y, b x + d y), where a, b, c and d are the numbers 0, 1, 3 and 4.
    """
    if len(matrix) < 36:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack_from("=9i", matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _STRAIGHT[_sign(a), _sign(d)]
    return _SIDEWAYS[_sign(b), _sign(c)]


def swaps_sides(orientation: int) -> bool:
    """Return whether turning a picture upright swaps its width and height."""
    return orientation >= 5


def turn(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn a picture upright.

    Args:
        image: The stored picture, (H, W, ...).
        orientation: 1 to 8. Other numbers mean 1, as in most readers of EXIF.

    Returns:
        The picture, C-contiguous. With the orientation 1 it is the argument itself, if that is contiguous.
    """
    match orientation:
        case 2:
            image = image[:, ::-1]
        case 3:
            image = image[::-1, ::-1]
        case 4:
            image = image[::-1]
        case 5:
            image = image.swapaxes(0, 1)
        case 6:
            image = image.swapaxes(0, 1)[:, ::-1]
        case 7:
            image = image[::-1, ::-1].swapaxes(0, 1)
        case 8:
            image = image.swapaxes(0, 1)[::-1]
    return np.ascontiguousarray(image)


def _sign(number: int) -> int:
    return -1 if number < 0 else 1
