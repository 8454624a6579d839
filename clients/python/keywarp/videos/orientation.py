"""Which way up a video's pictures are: its display matrix, in the numbers that EXIF has for images."""

import struct
from typing import Final

from keywarp.images.orientation import UPRIGHT

_STRAIGHT: Final = {(1, 1): 1, (-1, 1): 2, (-1, -1): 3, (1, -1): 4}  # EXIF's numbers by the signs of a and d
_SIDEWAYS: Final = {(1, 1): 5, (1, -1): 6, (-1, -1): 7, (-1, 1): 8}  # by the signs of b and c


def orientation_of(matrix: bytes) -> int:
    """Return EXIF's number of the orientation that a display matrix stands for, or of the nearest one.

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


def _sign(number: int) -> int:
    return -1 if number < 0 else 1
