"""The structure of JPEG files (ITU-T T.81, annex B), as far as it says how a file has to be decoded."""

from collections.abc import Iterator
from typing import Final

APP1: Final = 0xE1
_START_OF_SCAN, _END = 0xDA, 0xD9
_BASELINE, _SEQUENTIAL = 0xC0, 0xC1
_BARE_MARKERS: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def segments(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the marker and content of each segment, up to the header of the first scan or whatever is no segment."""
    view, position = memoryview(data), 2
    while position + 4 <= len(view) and view[position] == 0xFF:
        marker = view[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker in _BARE_MARKERS:
            position += 2
            continue
        if marker == _END:
            return
        length = int.from_bytes(view[position + 2 : position + 4], "big")
        yield marker, view[position + 4 : position + 2 + length]
        if marker == _START_OF_SCAN:
            return
        position += 2 + max(length, 2)


def scans(data: bytes | memoryview) -> int:
    """Return the most scans that decoding goes through, each of which passes over the whole picture."""
    components = 0  # of a frame that one scan can hold as a whole
    for marker, content in segments(data):
        if marker in (_BASELINE, _SEQUENTIAL) and len(content) > 5:
            components = content[5]
        elif marker == _START_OF_SCAN and len(content) and content[0] == components:
            return 1  # decoders stop after it
    # In the data of a scan a zero follows each 0xFF. Segments may hold these bytes, too, such as that of a thumbnail.
    return bytes(data).count(bytes((0xFF, _START_OF_SCAN)))
