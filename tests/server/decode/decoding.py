"""Run a decoder as a pipeline does."""

from collections.abc import Iterator, Sequence

import numpy as np

from keywarp.protocol import FrameHeader
from keywarp.server.decode.frames import Decoded, DecodedFrame, Decoder
from keywarp.server.errors import FrameRefusedError
from keywarp.videos import Note

LIMIT = 4096 * 4096


def decode(
    decoder: Decoder, payloads: Sequence[bytes], first_id: int = 0, notes: list[str] | None = None
) -> Iterator[DecodedFrame | FrameRefusedError]:
    for id_, payload in enumerate(payloads, first_id):
        yield from _without_notes(decoder.decode(FrameHeader(id=id_, timestamp=id_ / 10), memoryview(payload)), notes)


def decode_all(
    decoder: Decoder, payloads: Sequence[bytes], notes: list[str] | None = None
) -> list[DecodedFrame | FrameRefusedError]:
    items = [*decode(decoder, payloads, notes=notes), *_without_notes(decoder.finish(), notes)]
    decoder.close()
    return items


def _without_notes(items: Iterator[Decoded], notes: list[str] | None) -> Iterator[DecodedFrame | FrameRefusedError]:
    for item in items:
        if not isinstance(item, Note):
            yield item
        elif notes is not None:
            notes.append(item.text)


def grey(frame: Decoded) -> int:
    """Read the frame's number from its grey value."""
    assert isinstance(frame, DecodedFrame)
    pixels = np.asarray(frame.pixels)
    assert pixels.flags.c_contiguous
    return round((float(pixels.mean()) - 16) / 4)
