"""Decoded frames, and the interface of the decoders that make them from a producer's payloads."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from keywarp.engines import MotionVectors
from keywarp.engines.frames import Frame
from keywarp.protocol import ClientId, FrameHeader
from keywarp.server.errors import FrameRefusedError
from keywarp.videos import Note


@dataclass(slots=True, eq=False)
class DecodedFrame:
    """One frame on its way from the decoder to its response.

    The stream sets `index` and `received`. Every stage that delays the frame adds to `waited`.
    """

    pixels: Frame  # (H, W, 3), RGB, C-contiguous; perhaps on the GPU, until something needs them on the host
    id: ClientId | None  # the producer's id of the frame
    timestamp: float | None  # in seconds, as the producer or the container gives it; None if it is unknown
    decode: float  # seconds that decoding took
    waited: float = 0.0  # seconds spent in queues before the device's, so far
    index: int = -1  # position in the stream, from 0
    vectors: MotionVectors | None = None  # None if the decoder gave none
    gap: bool = False  # whether the producer says that frames are missing before it
    received: datetime | None = None  # when it reached the server


# What a decoder yields: a frame, the reason why one can't be decoded, or what one should know about the video.
Decoded = DecodedFrame | FrameRefusedError | Note


class Decoder(Protocol):
    """Turns one producer's payloads into frames, in order.

    The iterators are lazy, so that a small payload with many frames doesn't fill the memory. Exhaust or close each one
    before the next call. Steps may run on any thread, one at a time. Every method may raise `BadVideoError`, after
    which nothing more can be decoded.

    Attributes:
        whole_units: Whether payloads are whole images or packets, each of which usually completes one frame at once.
    """

    whole_units: bool

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:
        """Decode every frame that one more payload completes."""
        ...

    def finish(self) -> Iterator[Decoded]:
        """Decode the frames that were held back for payloads that might have followed."""
        ...

    def close(self) -> None:
        """Free all resources. It may be called more than once."""
        ...
