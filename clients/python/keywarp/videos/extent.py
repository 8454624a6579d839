"""How long a file should be by its own words, so that one that was cut off is noticed.

Containers whose outermost part has a size tell it: MP4 (ISO 14496-12, boxes), Matroska and WebM (RFC 8794, elements),
AVI (RIFF) and FLV (`filesize` in its metadata). A transport stream doesn't, nor does a stream of unknown length.
"""

import struct
from collections.abc import Generator
from pathlib import Path
from typing import Final

_FLV_START: Final = 64 * 2**10  # bytes in which FLV's metadata is looked for
_MAX_HEADER: Final = 32  # bytes of a box's or element's header

# It yields the place and number of the bytes that it needs, gets them or as many as there are, and returns where the
# file should end, or None if the file doesn't say; or the place of a broken part, with a minus.
_Reading = Generator[tuple[int, int], bytes, "int | None"]


class Extent:
    """Reads how long a file should be, from its bytes as they arrive."""

    def __init__(self) -> None:
        self.received = 0  # bytes
        self._buffer = b""  # bytes from `_start` on
        self._start = 0
        self._reading = _read()
        self._wanted: tuple[int, int] | None = next(self._reading)
        self._end: int | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        if self._wanted is None:
            self.received += len(data)
            return
        place = self._wanted[0]
        if not self._buffer:
            self._start = max(self.received, min(place, self.received + len(data)))
        self._buffer += bytes(data[max(0, self._start + len(self._buffer) - self.received) :])
        self.received += len(data)
        self._advance(final=False)

    @property
    def fault(self) -> str | None:
        """What is wrong if the file ends here, in words that follow its name; None if nothing is, or isn't known."""
        self._advance(final=True)
        return _fault(self._end, self.received)

    def _advance(self, *, final: bool) -> None:
        while self._wanted is not None:
            place, count = self._wanted
            if place > self._start:
                self._buffer, self._start = self._buffer[place - self._start :], place
            if place + count > self.received and not final:
                return
            try:
                self._wanted = self._reading.send(self._buffer[:count] if place <= self.received else b"")
            except StopIteration as stop:
                self._wanted, self._end, self._buffer = None, stop.value, b""


def file_extent(path: Path) -> str | None:
    """Return what is wrong with the length of a file, as `Extent.fault`."""
    reading = _read()
    with path.open("rb") as file:
        try:
            place, count = next(reading)
            while True:
                file.seek(place)
                place, count = reading.send(file.read(count))
        except StopIteration as stop:
            return _fault(stop.value, path.stat().st_size)


def _fault(end: int | None, size: int) -> str | None:
    if end is None or 0 <= end <= size:
        return None
    return f"ends {end - size} bytes too early" if end > 0 else f"is broken at byte {-end}"


def _read() -> _Reading:
    head = yield 0, 12
    if head[:4] == b"RIFF":
        size = int.from_bytes(head[4:8], "little")
        return size + 8 if 0 < size < 2**32 - 1 else None  # zeros or ones where the header couldn't be completed
    if head[:3] == b"FLV":
        return (yield from _flv())
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return (yield from _matroska())
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"styp", b"free", b"wide", b"skip"):
        return (yield from _mp4())
    return None


def _mp4() -> _Reading:
    """Go from box to box: a size of 4 bytes, a type, and for the size 1 another size of 8 bytes."""
    place, fragment = 0, None
    while True:
        header = yield place, 24
        if len(header) < 8:
            return place + (8 if header else 0)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big") if len(header) >= 16 else 16
        if not size:  # a box up to the end of the file
            return None
        if size < 8 or not header[4:8].isalnum():
            return -place
        if header[4:8] == b"moof" and len(header) == 24:  # a fragment, whose first box has its number
            number = int.from_bytes(header[20:24], "big")
            if fragment is not None and number > fragment + 1:
                return -place
            fragment = number
        place += size


def _matroska() -> _Reading:
    """Read the sizes of the EBML header and of the segment that follows it."""
    place = 0
    for expected in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        header = yield place, _MAX_HEADER
        if header[:4] != expected or len(header) < 5 or not header[4]:
            return None
        length = 9 - header[4].bit_length()  # of the size, in bytes
        size = int.from_bytes(header[4 : 4 + length], "big") & (1 << 7 * length) - 1
        if size == (1 << 7 * length) - 1:  # unknown
            return None
        place += 4 + length + size
    return place


def _flv() -> _Reading:
    head = yield 0, _FLV_START
    at = head.find(b"\x00\x08filesize\x00")
    if at < 0 or len(head) < at + 19:
        return None
    (size,) = struct.unpack_from(">d", head, at + 11)
    return int(size) if 0 < size < 2**53 else None
