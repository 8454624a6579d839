"""Pictures on disk: reading them, and bringing them and what is known of them to the size that is trained at."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.errors import DataError
from keywarp.datasets.samples import Boxes, Truth
from keywarp.datasets.types import Image, Labels

Size = tuple[int, int]  # height, width in pixels

_GREY_8_BIT = b"\x08\x00"  # bit depth and colour type in a PNG's header
_HEADER = slice(24, 26)


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        DataError: It isn't there, or may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}; see that the data set is there as a whole") from error


def read_image(path: Path) -> Image:
    """Read a JPEG, PNG or PPM: (H, W, 3) RGB, as it is stored (an orientation tag is not obeyed).

    Raises:
        DataError: It isn't there, is cut short, or is no image.
    """
    return _decode(path, read_bytes(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def read_labels(path: Path) -> Labels:
    """Read a PNG whose grey values are class ids: (H, W).

    Raises:
        DataError: It isn't there, is cut short, or isn't an 8-bit greyscale PNG. A palette is refused because only its
            colours would be read, fewer bits because they would be spread over 0..255.
    """
    content = read_bytes(path)
    labels = _decode(path, content, cv2.IMREAD_UNCHANGED)
    if not content.startswith(b"\x89PNG") or content[_HEADER] != _GREY_8_BIT:
        raise DataError(f"{path} is not an 8-bit greyscale PNG of class ids; save it as one, without a palette")
    return labels


def _decode(path: Path, content: bytes, flags: int) -> npt.NDArray[np.uint8]:
    # from memory: reading from a file, OpenCV may fill up a JPEG that is cut short with grey
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if image is None:
        raise DataError(f"{path} is cut short or not an image; get it again")
    return np.asarray(image, np.uint8)


@dataclass(frozen=True)
class Resize:
    """The size that pictures are brought to, and their labels and boxes with them."""

    short_side: int  # pixels: what the shorter side becomes, ...
    long_side: int  # ... unless the longer one would then be above this

    def size(self, size: Size) -> Size:
        """What a picture's size becomes."""
        factor = min(self.short_side / min(size), self.long_side / max(size))
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def image(self, image: Image) -> Image:
        """Resize a picture, (H, W, 3): bilinearly as the engine does, which has no time for better."""
        old, new = _size(image), self.size(_size(image))
        if old == new:
            return image
        return np.asarray(cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)

    def truth(self, truth: Truth, size: Size) -> Truth:
        """Resize what is known of a picture of a size: labels to the nearest pixel, boxes in proportion."""
        height, width = self.size(size)
        labels, boxes = truth.labels, truth.boxes
        if labels is not None and _size(labels) != (height, width):
            labels = np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
        if boxes is not None:
            scale = np.array([width / size[1], height / size[0]] * 2, np.float32)
            boxes = Boxes(boxes.corners * scale, boxes.classes)
        return Truth(labels, boxes)


def _size(picture: npt.NDArray[np.uint8]) -> Size:
    return picture.shape[0], picture.shape[1]
