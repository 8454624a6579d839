"""Driving a decoder as a connection does."""

from collections.abc import Iterator, Sequence

from keywarp.protocol import FrameHeader
from keywarp.server.decode.frames import Damage, Decoder, Picture

LIMIT = 4096 * 4096


def decode(decoder: Decoder, payloads: Sequence[bytes], first_id: int = 0) -> Iterator[Picture | Damage]:
    for id_, payload in enumerate(payloads, first_id):
        yield from decoder.decode(FrameHeader(id=id_, timestamp=id_ / 10), memoryview(payload))


def decode_all(decoder: Decoder, payloads: Sequence[bytes]) -> list[Picture | Damage]:
    items = [*decode(decoder, payloads), *decoder.finish()]
    decoder.close()
    return items


def grey(picture: Picture | Damage) -> int:
    """The number of the frame by what it shows."""
    assert isinstance(picture, Picture)
    assert picture.pixels.flags.c_contiguous
    return round((float(picture.pixels.mean()) - 16) / 4)
