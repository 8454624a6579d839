"""Decoded frames, and what makes them out of a client's messages."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.protocol import ClientId, FrameHeader
from keywarp.server.decode.images import decode_image
from keywarp.server.errors import FrameRefusedError


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One decoded frame."""

    pixels: NDArray[np.uint8]  # (H, W, 3), RGB, C-contiguous
    id: ClientId | None
    timestamp: float | None  # seconds
    decode: float  # seconds that decoding took


@dataclass(frozen=True, slots=True, eq=False)
class Damage:
    """One frame that couldn't be decoded."""

    error: FrameRefusedError
    id: ClientId | None


class Decoder(Protocol):
    """Turns one connection's payloads into pictures, in order.

    Iterators are lazy, so that one small message of many frames doesn't fill the memory; each must be exhausted or
    closed before the next call. Steps may run on any thread, one at a time. All may raise `BadVideoError`: nothing more
    can come then.
    """

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Picture | Damage]:
        """Everything that one more payload completes."""
        ...

    def finish(self) -> Iterator[Picture | Damage]:
        """Everything that was held back for what might have followed."""
        ...

    def close(self) -> None:
        """Free everything; may be called more than once."""
        ...


class ImageDecoder:
    """Each payload is one whole image."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Picture | Damage]:
        """One picture, or what is wrong with it."""
        started = time.perf_counter()
        try:
            pixels = decode_image(payload, self._max_pixels)
        except FrameRefusedError as error:
            yield Damage(error, header.id)
        else:
            yield Picture(pixels, header.id, header.timestamp, time.perf_counter() - started)

    def finish(self) -> Iterator[Picture | Damage]:
        """Nothing: images are never held back."""
        yield from ()

    def close(self) -> None:
        """Nothing to free."""
