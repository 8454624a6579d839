"""Images in files: reading them, and resizing them together with their ground truth."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.errors import DataError
from keywarp.datasets.samples import Boxes, Truth
from keywarp.datasets.types import Image, Labels
from keywarp.images import FILE_FORMATS, ImageError, decode_image

Size = tuple[int, int]  # height, width in pixels

_GREY_8_BIT = b"\x08\x00"  # bit depth and colour type in a PNG's header
_HEADER = slice(24, 26)


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        DataError: If the file is missing or can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}; check that the data set is complete") from error


def read_image(path: Path, *, upright: bool = True) -> Image:
    """Read an image as (H, W, 3) RGB, as the client and the server do.

    Args:
        path: The file.
        upright: Whether the image is turned as its EXIF orientation says, or left as its pixels are stored.

    Raises:
        DataError: If the file is missing, cut short or not an image.
    """
    try:
        return decode_image(read_bytes(path), formats=FILE_FORMATS, upright=upright)
    except ImageError as error:
        raise DataError(f"{path} is cut short or not an image: {error}; download it again") from error


def read_labels(path: Path) -> Labels:
    """Read a PNG whose grey values are class ids, (H, W).

    Raises:
        DataError: If the file is missing, cut short or not an 8-bit greyscale PNG. A palette is refused because its
            colours would be read instead of its ids, and fewer bits because they would be scaled to 0..255.
    """
    content = read_bytes(path)
    # from memory, since OpenCV may pad a truncated file when it reads from a file
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if found is None:
        raise DataError(f"{path} is cut short or not an image; download it again")
    labels = np.asarray(found, np.uint8)
    if not content.startswith(b"\x89PNG") or content[_HEADER] != _GREY_8_BIT:
        raise DataError(f"{path} is not an 8-bit greyscale PNG of class ids; save it as one, without a palette")
    return labels


@dataclass(frozen=True)
class Resize:
    """The size that images are resized to, together with their labels and boxes."""

    short_side: int  # pixels of the shorter side, ...
    long_side: int  # ... unless the longer one would then have more pixels than this

    def size(self, size: Size) -> Size:
        """Return the size of a resized image."""
        factor = min(self.short_side / min(size), self.long_side / max(size))
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def image(self, image: Image) -> Image:
        """Resize an image (H, W, 3) bilinearly, as the engine does for speed."""
        old, new = _size(image), self.size(_size(image))
        if old == new:
            return image
        return np.asarray(cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)

    def truth(self, truth: Truth, size: Size) -> Truth:
        """Resize the ground truth of an image of a given size: labels to the nearest pixel, boxes in proportion."""
        height, width = self.size(size)
        labels, boxes = truth.labels, truth.boxes
        if labels is not None and _size(labels) != (height, width):
            labels = np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
        if boxes is not None:
            scale = np.array([width / size[1], height / size[0]] * 2, np.float32)
            boxes = Boxes(boxes.corners * scale, boxes.classes)
        return Truth(labels, boxes)


def scale_image(image: Image, factor: float) -> Image:
    """Resize an image by a factor, averaging pixels where it shrinks."""
    height, width = _size(image)
    size = (round(width * factor), round(height * factor))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _size(image: npt.NDArray[np.uint8]) -> Size:
    return image.shape[0], image.shape[1]
