"""MP4s that claim more samples than they have."""

import struct
from collections.abc import Callable, Iterator

from tests.server.media import FRAGMENTED, NO_DELAY, encode, moving

Change = Callable[[bytes, bytes], bytes]  # of a box's kind and content to its new content
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while data:
        size = int.from_bytes(data[:4])
        yield data[4:8], data[8:size]
        data = data[size:]


def _changed(data: bytes, change: Change) -> bytes:
    parts = []
    for kind, content in _boxes(data):
        new = _changed(content, change) if kind in _PARENTS else change(kind, content)
        parts.append(struct.pack(">I", len(new) + 8) + kind + new)
    return b"".join(parts)


def with_samples(count: int, *, index_first: bool) -> bytes:
    """Make a small MP4 whose tables claim samples of the same size."""
    tables = {
        b"stts": struct.pack(">IIII", 0, 1, count, 512),
        b"stsc": struct.pack(">IIIII", 0, 1, 1, count, 1),
        b"stsz": struct.pack(">III", 0, 1, count),
    }
    data = _changed(encode(moving(3), "mp4", NO_DELAY)[0], lambda kind, content: tables.get(kind, content))
    parts = [struct.pack(">I", len(content) + 8) + kind + content for kind, content in _boxes(data)]
    if index_first:
        parts.sort(key=lambda part: part[4:8] == b"mdat")
    return b"".join(parts)


def fragment_with_samples(count: int) -> bytes:
    """Make a small MP4 whose first fragment claims samples that all have the default size."""
    boxes = {
        b"tfhd": struct.pack(">IIIII", 0x20038, 1, 512, 1, 0x1010000),
        b"trun": struct.pack(">IIi", 1, count, 100),
    }
    data, _ = encode(moving(3), "mp4", NO_DELAY, muxing=FRAGMENTED)
    return _changed(data, lambda kind, content: boxes.get(kind, content))
