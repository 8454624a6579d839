"""Decode images: JPEG with libjpeg-turbo, the others with Pillow. Sizes are checked before anything is decoded."""

import io
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from keywarp.images.errors import DamagedImageError, NotAnImageError, TooManyPixelsError, UnsupportedImageError
from keywarp.images.formats import FILE_FORMATS, WIRE_FORMATS, ImageFormat, format_of, other_format_of
from keywarp.images.jpeg import scans
from keywarp.images.orientation import INVERSE, TAG, UPRIGHT, exif_orientation, jpeg_orientation, turn
from keywarp.images.png import sound_part

MAX_PIXELS: Final = 2**28  # the most pixels of an image, unless a caller allows fewer; 800 MB as RGB
MAX_SCANS: Final = 32  # of a JPEG; encoders make about 10, and each costs as much as a pass over the whole picture
_HEAD_BYTES: Final = 32  # enough for the sizes in PNG and WebP headers
_FILE_TYPES: Final[Mapping[ImageFormat, type[ImageFile]]] = {
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "PPM": PpmImageFile,
}
# What Pillow raises for files that are damaged. None of it means anything else here, since the data is in memory.
_DAMAGE: Final = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    UnidentifiedImageError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    AttributeError,
    Image.DecompressionBombError,
)
_MODES_16_BIT: Final = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True, slots=True, eq=False)
class AnimationFrame:
    """One frame of an animation, with its time."""

    pixels: NDArray[np.uint8]  # RGB (H, W, 3), C-contiguous
    timestamp: float  # seconds from the start
    duration: float  # seconds; 0 if it isn't said


def decode_image(
    data: bytes | memoryview,
    max_pixels: int = MAX_PIXELS,
    *,
    formats: Collection[ImageFormat] = WIRE_FORMATS,
    upright: bool = True,
) -> NDArray[np.uint8]:
    """Decode an image, or the first picture of an animation.

    Grey, palettes, CMYK and 16 bits become RGB with 8 bits. Transparency is dropped, and so are colour profiles.

    Args:
        data: The whole file.
        max_pixels: The most pixels that an image may have.
        formats: The formats to read.
        upright: Whether the picture is turned as its EXIF orientation says, or left as its pixels are stored.

    Returns:
        The pixels, uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        NotAnImageError: The data doesn't begin like any of the formats.
        UnsupportedImageError: It is an image of a kind that isn't read.
        TooManyPixelsError: The image is too large by its header. Nothing was decoded.
        DamagedImageError: The image is truncated or damaged.
    """
    head = bytes(data[:_HEAD_BYTES])
    found = format_of(head)
    if found is None or found not in formats:
        raise _not_an_image(head, len(data), found, formats)
    if found == "JPEG":
        pixels, turned_by = _decode_jpeg(data, max_pixels), jpeg_orientation(data)
    else:
        pixels, turned_by = _decode_pillow(found, data, head, max_pixels)
    if found == "TIFF":  # Pillow has turned it already
        return pixels if upright else turn(pixels, INVERSE.get(turned_by, turned_by))
    return turn(pixels, turned_by) if upright else pixels


def is_animated(head: bytes) -> bool:
    """Return whether a WebP or PNG file that begins with `head` (as much of it as there is) is an animation."""
    if format_of(head) == "WebP":
        return head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & 2)
    return format_of(head) == "PNG" and b"acTL" in head.partition(b"IDAT")[0]


def decode_animation(
    data: bytes | memoryview, max_pixels: int = MAX_PIXELS, *, upright: bool = True
) -> Iterator[AnimationFrame]:
    """Decode the frames of a WebP or PNG file, one at a time.

    Args:
        data: The whole file.
        max_pixels: The most pixels that a frame may have.
        upright: Whether the frames are turned as their EXIF orientation says.

    Raises:
        ImageError: The errors of `decode_image`, after the frames that could be decoded.
    """
    head, complete = bytes(data[:_HEAD_BYTES]), True
    found = format_of(head)
    if found not in ("PNG", "WebP"):
        raise _not_an_image(head, len(data), found, ("PNG", "WebP"))
    if found == "PNG":
        data, complete = sound_part(data)
    with _opened(found, data, head, max_pixels) as image:
        milliseconds = 0.0
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            pixels = _rgb(image)
            duration = float(image.info.get("duration", 0))
            turned = turn(pixels, _orientation(image)) if upright else pixels
            yield AnimationFrame(turned, milliseconds / 1000, duration / 1000)
            milliseconds += duration
    if not complete:
        raise DamagedImageError("the PNG image is damaged or truncated")


def _not_an_image(
    head: bytes, size: int, found: ImageFormat | None, formats: Collection[ImageFormat]
) -> NotAnImageError:
    names = [name for name in FILE_FORMATS if name in formats]
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    if size == 0:
        return NotAnImageError(f"not a {listed} image, but no bytes at all")
    other = found or other_format_of(head)
    return NotAnImageError(f"not a {listed} image, but {other}" if other else f"not a {listed} image ({size} bytes)")


def _decode_jpeg(data: bytes | memoryview, max_pixels: int) -> NDArray[np.uint8]:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        _check(width, height, max_pixels)
        if (count := scans(data)) > MAX_SCANS:
            raise UnsupportedImageError(f"a JPEG image with {count} scans isn't read, but with at most {MAX_SCANS}")
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError as error:  # `strict`, because the rest of a truncated file would otherwise be filled with grey
        reason = re.sub(r"^\w+\(\): ", "", str(error))  # without the name of libjpeg-turbo's function
        if "precision" in reason:
            raise UnsupportedImageError(f"a JPEG image with more than 8 bits isn't read ({reason})") from error
        raise DamagedImageError(f"the JPEG image is damaged: {reason}") from error
    return pixels


def _decode_pillow(
    form: ImageFormat, data: bytes | memoryview, head: bytes, max_pixels: int
) -> tuple[NDArray[np.uint8], int]:
    """Decode an image with Pillow, and return its pixels and EXIF's number of its orientation."""
    if form == "PNG":
        _check(*_png_size(head), max_pixels)
        data, complete = sound_part(data)
        if not complete:
            raise DamagedImageError("the PNG image is damaged or truncated")
    with _opened(form, data, head, max_pixels) as image:
        tagged = image.tag_v2.get(TAG, UPRIGHT) if isinstance(image, TiffImageFile) else None
        pixels = _rgb(image)
        return pixels, _orientation(image) if tagged is None else int(tagged)


@contextmanager
def _opened(form: ImageFormat, data: bytes | memoryview, head: bytes, max_pixels: int) -> Iterator[ImageFile]:
    """Open an image with Pillow. What it raises in the block becomes a `DamagedImageError`."""
    size = None
    if form == "PNG":
        size = _png_size(head)
    elif form == "WebP":
        size = _webp_size(head)
    if size is not None:
        _check(*size, max_pixels)
    try:
        # Image.open would try all formats, and warn about sizes above its own limit.
        with _FILE_TYPES[form](io.BytesIO(data)) as image:
            if size is not None and image.size != size:
                raise DamagedImageError(
                    f"the image claims to be {size[0]}x{size[1]}, but is {image.width}x{image.height}"
                )
            _check(image.width, image.height, max_pixels)
            yield image
    except _DAMAGE as error:
        raise DamagedImageError(f"the {form} image is damaged or truncated") from error


def _orientation(image: ImageFile) -> int:
    return exif_orientation(image.info.get("exif", b""))


def _rgb(image: ImageFile) -> NDArray[np.uint8]:
    image.load()
    if image.mode in _MODES_16_BIT or (image.mode == "I" and image.format == "PPM"):  # `convert` would clip these
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    if image.mode in ("I", "F"):
        kind = "floating-point numbers" if image.mode == "F" else "numbers of 32 bits"
        raise UnsupportedImageError(
            f"a {image.format} image whose pixels are {kind} isn't read, since their range is unknown: "
            "save it with 8 or 16 bits"
        )
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    # NumPy would ask Pillow for the bytes several times.
    return np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.height, rgb.width, 3).copy()


def _png_size(head: bytes) -> tuple[int, int]:
    """Read width and height from the IHDR chunk, which comes first (PNG, section 5.6)."""
    if len(head) < 24 or head[12:16] != b"IHDR":
        raise DamagedImageError("the PNG image has no header")
    width, height = struct.unpack_from(">II", head, 16)
    return width, height


def _webp_size(head: bytes) -> tuple[int, int]:
    """Read width and height from the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    if len(head) < 30:
        raise DamagedImageError("the WebP image has no header")
    match head[12:16]:
        case b"VP8X":  # canvas size minus one, 24 bits each
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case b"VP8L":  # size minus one, 14 bits each, after a signature byte
            bits = int.from_bytes(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":  # 14 bits each, plus two bits of scaling, after the frame tag and start code
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            raise DamagedImageError("the WebP image has no header")


def _check(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixelsError(f"the image is {width}x{height}; at most {max_pixels} pixels are allowed")
    if not width or not height:
        raise DamagedImageError(f"the image is {width}x{height}: it has no pixels")
