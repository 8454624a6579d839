"""Run a decoder as a pipeline does."""

from collections.abc import Iterator, Sequence

from keywarp.protocol import FrameHeader
from keywarp.server.decode.frames import Decoded, DecodedFrame, Decoder

LIMIT = 4096 * 4096


def decode(decoder: Decoder, payloads: Sequence[bytes], first_id: int = 0) -> Iterator[Decoded]:
    for id_, payload in enumerate(payloads, first_id):
        yield from decoder.decode(FrameHeader(id=id_, timestamp=id_ / 10), memoryview(payload))


def decode_all(decoder: Decoder, payloads: Sequence[bytes]) -> list[Decoded]:
    items = [*decode(decoder, payloads), *decoder.finish()]
    decoder.close()
    return items


def grey(frame: Decoded) -> int:
    """Read the frame's number from its grey value."""
    assert isinstance(frame, DecodedFrame)
    assert frame.pixels.flags.c_contiguous
    return round((float(frame.pixels.mean()) - 16) / 4)
