"""The orientation of a picture, as EXIF stores it, and turning pixels by it.

A camera that is held sideways or upside down stores the pixels as its sensor gives them, and notes in EXIF how to turn
them (Exif 2.32, section 4.6.4, tag 274).
"""

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keywarp.images.jpeg import APP1, segments

UPRIGHT: Final = 1  # EXIF's number of a picture that needs no turn
INVERSE: Final = {6: 8, 8: 6}  # the others are their own inverses
TAG: Final = 274  # of the orientation, in EXIF and TIFF
_SHORT: Final = 3  # the type of an unsigned 16-bit number
_EXIF: Final = b"Exif\0\0"


def turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn pixels (H, W, 3) upright.

    Args:
        pixels: The pixels as they are stored. Each one's channels are next to each other in memory.
        orientation: EXIF's number, 1 to 8. Others mean no turn.

    Returns:
        The pixels, C-contiguous: the same array for no turn, and (W, H, 3) for the numbers from 5 to 8.
    """
    if not 2 <= orientation <= 8:
        return pixels
    height, width, channels = pixels.shape
    whole = pixels.view(f"V{channels}").reshape(height, width)  # pixels as units are copied twice as fast
    match orientation:
        case 2:
            turned = whole[:, ::-1]
        case 3:
            turned = whole[::-1, ::-1]
        case 4:
            turned = whole[::-1]
        case 5:
            turned = whole.T
        case 6:
            turned = np.rot90(whole, -1)
        case 7:
            turned = whole[::-1, ::-1].T
        case _:
            turned = np.rot90(whole)
    return np.ascontiguousarray(turned).view(np.uint8).reshape(*turned.shape, channels)


def jpeg_orientation(data: bytes | memoryview) -> int:
    """Return EXIF's number of the orientation of a JPEG, which is 1 if the file doesn't say it."""
    for marker, content in segments(data):
        if marker == APP1 and bytes(content[:6]) == _EXIF:
            return exif_orientation(bytes(content))
    return UPRIGHT


def exif_orientation(exif: bytes) -> int:
    """Return the number of the orientation in EXIF data, which is 1 if the data is damaged or doesn't say it."""
    data = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    try:
        if order is None:
            return UPRIGHT
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", data, start + 2 + 12 * entry)
            if tag == TAG:
                return int(value) if kind == _SHORT and 1 <= value <= 8 else UPRIGHT
    except struct.error:  # shorter than it says
        pass
    return UPRIGHT
