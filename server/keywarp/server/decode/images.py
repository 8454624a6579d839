"""Decode payloads that are images, with the reader that the client uses, too."""

import time
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keywarp import images
from keywarp.protocol import FrameHeader
from keywarp.server.decode.frames import Decoded, DecodedFrame
from keywarp.server.errors import (
    DamagedImageError,
    FrameRefusedError,
    NotAnImageError,
    TooManyPixelsError,
    UnsupportedImageError,
)

_ERRORS: Final[Mapping[type[images.ImageError], type[FrameRefusedError]]] = {
    images.DamagedImageError: DamagedImageError,
    images.NotAnImageError: NotAnImageError,
    images.TooManyPixelsError: TooManyPixelsError,
    images.UnsupportedImageError: UnsupportedImageError,
}


class ImageDecoder:
    """Decodes payloads that are whole images."""

    def __init__(self, max_pixels: int, *, upright: bool = True) -> None:
        self._max_pixels = max_pixels
        self._upright = upright

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:
        """Decode the image, or yield the reason why it can't be decoded."""
        try:
            yield decode_frame(header, payload, self._max_pixels, upright=self._upright)
        except FrameRefusedError as error:
            yield error

    def finish(self) -> Iterator[Decoded]:
        """Return nothing: images are never held back."""
        yield from ()

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def decode_frame(
    header: FrameHeader, data: bytes | memoryview, max_pixels: int, *, upright: bool = True
) -> DecodedFrame:
    """Decode an image as a frame, and measure the time that this takes.

    Raises:
        FrameRefusedError: The image can't be decoded; see `decode_image`. The error has the frame's id.
    """
    started = time.perf_counter()
    try:
        pixels = decode_image(data, max_pixels, upright=upright)
    except FrameRefusedError as error:
        error.id = header.id
        raise
    seconds = time.perf_counter() - started
    return DecodedFrame(pixels, header.id, header.timestamp, seconds, gap=bool(header.gap))


def decode_image(data: bytes | memoryview, max_pixels: int, *, upright: bool = True) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP image, as `keywarp.images.decode_image` describes it.

    Raises:
        NotAnImageError: The data doesn't begin like any of the three formats.
        UnsupportedImageError: It is an image of a kind that isn't read.
        TooManyPixelsError: The image is too large by its header. Nothing was decoded.
        DamagedImageError: The image is truncated or damaged.
    """
    try:
        return images.decode_image(data, max_pixels, upright=upright)
    except images.ImageError as error:
        raise _ERRORS[type(error)](str(error)) from error
