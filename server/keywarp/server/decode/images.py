"""Decode images: JPEG with libjpeg-turbo, PNG and WebP with Pillow. Sizes are checked before anything is decoded."""

import io
import struct
import time
from collections.abc import Iterator
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from keywarp.protocol import FrameHeader
from keywarp.server.decode.frames import Decoded, DecodedFrame
from keywarp.server.errors import DamagedImageError, FrameRefusedError, NotAnImageError, TooManyPixelsError

_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES: Final = 32  # enough for the sizes in PNG and WebP headers


class ImageDecoder:
    """Decodes payloads that are whole images."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:
        """Decode the image, or yield the reason why it can't be decoded."""
        try:
            yield decode_frame(header, payload, self._max_pixels)
        except FrameRefusedError as error:
            yield error

    def finish(self) -> Iterator[Decoded]:
        """Return nothing: images are never held back."""
        yield from ()

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def decode_frame(header: FrameHeader, data: bytes | memoryview, max_pixels: int) -> DecodedFrame:
    """Decode an image as a frame, and measure the time that this takes.

    Raises:
        FrameRefusedError: The image can't be decoded; see `decode_image`. The error has the frame's id.
    """
    started = time.perf_counter()
    try:
        pixels = decode_image(data, max_pixels)
    except FrameRefusedError as error:
        error.id = header.id
        raise
    return DecodedFrame(pixels, header.id, header.timestamp, time.perf_counter() - started)


def decode_image(data: bytes | memoryview, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP image, or the first picture of an animation.

    The EXIF orientation is ignored, so results are in the pixels that were sent. Transparency is dropped.

    Args:
        data: The whole file.
        max_pixels: The most pixels that an image may have.

    Returns:
        The pixels, uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        NotAnImageError: The data doesn't start like any of the three formats.
        TooManyPixelsError: The image is too large by its header. Nothing was decoded.
        DamagedImageError: The image is truncated or damaged.
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
    except ValueError as error:  # `strict`, because the rest of a truncated file would otherwise be filled with grey
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
        # Image.open would try all formats, and warn about sizes above its own limit.
        with file_type(io.BytesIO(data)) as image:
            if image.size != size:
                raise DamagedImageError(
                    f"the image claims to be {size[0]}x{size[1]}, but is {image.width}x{image.height}"
                )
            return _rgb(image)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, UnidentifiedImageError) as error:
        raise DamagedImageError(f"the {file_type.format} image is damaged or truncated") from error


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip instead of scaling it
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    return np.array(image.convert("RGB"))


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
