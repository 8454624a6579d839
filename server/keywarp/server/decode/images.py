"""Decode payloads that are images, with the reader that the client uses, too."""

import time
from collections.abc import Iterator

from keywarp.images import ImageError, decode_image
from keywarp.protocol import FrameHeader
from keywarp.server.decode.frames import Decoded, DecodedFrame
from keywarp.server.errors import ImageRefusedError


class ImageDecoder:
    """Decodes payloads that are whole images."""

    whole_units = True

    def __init__(self, max_pixels: int, *, upright: bool = True) -> None:
        self._max_pixels = max_pixels
        self._upright = upright

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:
        """Decode the image, or yield the reason why it can't be decoded."""
        try:
            yield decode_frame(header, payload, self._max_pixels, upright=self._upright)
        except ImageRefusedError as error:
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
        ImageRefusedError: The image can't be decoded. The error has the frame's id.
    """
    started = time.perf_counter()
    try:
        pixels = decode_image(data, max_pixels, upright=upright)
    except ImageError as error:
        raise ImageRefusedError(error, header.id) from error
    seconds = time.perf_counter() - started
    return DecodedFrame(pixels, header.id, header.timestamp, seconds, gap=bool(header.gap))
