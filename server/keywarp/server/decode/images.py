"""Images to arrays: JPEG by libjpeg-turbo, PNG and WebP by Pillow. Sizes are checked before anything is decoded."""

import io
import struct
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from keywarp.server.errors import DamagedImageError, NotAnImageError, TooManyPixelsError

_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES: Final = 32  # enough for the sizes in PNG and WebP headers


def decode_image(data: bytes | memoryview, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP image; of an animation, the first picture.

    An EXIF orientation is ignored: cameras' video frames don't rotate, and results are in the pixels that were sent.
    Transparency is dropped.

    Returns:
        uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        NotAnImageError: It doesn't start like any of the three.
        TooManyPixelsError: By its header; nothing was decoded.
        DamagedImageError: It is cut off or damaged.
    """
    head = bytes(data[:_HEADER_BYTES])
    if head.startswith(_JPEG):
        return _decode_jpeg(data, max_pixels)
    if head.startswith(_PNG):
        return _decode_pillow(PngImageFile, data, _png_size(head), max_pixels)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _decode_pillow(WebPImageFile, data, _webp_size(head), max_pixels)
    raise NotAnImageError(f"not a JPEG, PNG or WebP image ({len(data)} bytes)")


def _decode_jpeg(data: bytes | memoryview, max_pixels: int) -> NDArray[np.uint8]:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        _check(width, height, max_pixels)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError as error:  # strict: a truncated file too, which is otherwise filled up with grey
        raise DamagedImageError(f"the JPEG image is damaged: {error}") from error
    return pixels


def _decode_pillow(
    file_type: type[PngImageFile | WebPImageFile],
    data: bytes | memoryview,
    size: tuple[int, int],
    max_pixels: int,
) -> NDArray[np.uint8]:
    _check(*size, max_pixels)
    try:
        # Not Image.open: it tries all formats, and warns by a limit of its own.
        with file_type(io.BytesIO(data)) as image:
            if image.size != size:
                raise DamagedImageError(
                    f"the image says to be {size[0]}x{size[1]}, but holds {image.width}x{image.height}"
                )
            return _rgb(image)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, UnidentifiedImageError) as error:
        raise DamagedImageError(f"the {file_type.format} image is damaged or cut off") from error


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16 bit grey, which `convert` would clip instead of scale
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    return np.array(image.convert("RGB"))


def _png_size(head: bytes) -> tuple[int, int]:
    """Width and height by the IHDR chunk, which comes first (PNG, section 5.6)."""
    if len(head) < 24 or head[12:16] != b"IHDR":
        raise DamagedImageError("the PNG image has no header")
    width, height = struct.unpack_from(">II", head, 16)
    return width, height


def _webp_size(head: bytes) -> tuple[int, int]:
    """Width and height by the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    if len(head) < 30:
        raise DamagedImageError("the WebP image has no header")
    match head[12:16]:
        case b"VP8X":  # canvas size minus one, 24 bits each
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case b"VP8L":  # size minus one, 14 bits each, after a signature byte
            bits = int.from_bytes(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":  # 14 bits each, beside two bits of scaling, after the frame tag and start code
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            raise DamagedImageError("the WebP image has no header")


def _check(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooManyPixelsError(f"the image is {width}x{height}; at most {max_pixels} pixels are allowed")
    if not width or not height:
        raise DamagedImageError(f"the image is {width}x{height}: there is nothing to see")
