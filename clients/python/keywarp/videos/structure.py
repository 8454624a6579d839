"""Follow the structure of a file from one part to the next, to find where it is broken and where it should end.

FFmpeg looks for the next part that it knows where a file is broken, and doesn't say what it has passed over. Here
nothing is passed over:

- MP4 (ISO 14496-12): boxes, those in fragments too, and the numbers of fragments
- Matroska and WebM (RFC 8794, RFC 9559): elements down to the blocks, with their tracks, and the checksums of clusters
- FLV (Adobe's specification, version 10.1, annex E): tags and the sizes after them, and `filesize` in its metadata
- AVI: the size of its outermost part (RIFF)
- GIF (version 89a): blocks, and the pieces of their data

Only headers are read, so that the cost grows with the number of packets, except for clusters that have a checksum.
"""

import math
import struct
import zlib
from collections.abc import Generator
from typing import Final, NamedTuple


class End(NamedTuple):
    """The file shouldn't end before a place."""

    place: int  # in bytes from the file's start

    def fault(self, size: int) -> str | None:
        """Say what is wrong with a file of so many bytes, in words that follow its name, or return None."""
        return f"ends {self.place - size} bytes too early" if size < self.place else None


class Broken(NamedTuple):
    """What should begin at a place doesn't."""

    place: int  # in bytes from the file's start

    def fault(self, size: int) -> str | None:  # noqa: ARG002
        """Say what is wrong, as `End.fault`."""
        return f"is broken at byte {self.place}"


class Damaged(NamedTuple):
    """A part of the file doesn't have the checksum that it should."""

    start: int  # in bytes from the file's start
    end: int

    def fault(self, size: int) -> str | None:  # noqa: ARG002
        """Say what is wrong, as `End.fault`."""
        return f"is damaged between the bytes {self.start} and {self.end}, which don't have their checksum"


Verdict = End | Broken | Damaged | None  # None if the file doesn't say where it ends
# Yields the place and number of the bytes that it needs, each time at the same place as before or behind it, and gets
# them, or as many as there are.
Walk = Generator[tuple[int, int], bytes, Verdict]


def walk() -> Walk:
    """Follow the structure of a file, whatever its format."""
    head = yield 0, 12
    if head[:4] == b"RIFF":
        size = int.from_bytes(head[4:8], "little")
        return End(size + 8) if 0 < size < 2**32 - 1 else None  # zeros or ones where the header couldn't be completed
    if head[:3] == b"FLV":
        return (yield from _flv())
    if head[:4] == b"GIF8":
        return (yield from _gif())
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return (yield from _matroska())
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"styp", b"free", b"wide", b"skip"):
        return (yield from _mp4())
    return None


_MOVIE_FRAGMENT, _FRAGMENT_HEADER = b"moof", b"mfhd"
# The boxes of MP4 whose content is looked at, and what it begins with.
_FIRST: Final = {_MOVIE_FRAGMENT: _FRAGMENT_HEADER, b"traf": b"tfhd"}


def _end(place: int, ends: list[float]) -> End:
    """Return where a file should end that reaches a place, inside parts of which some end elsewhere."""
    return End(int(max(place, *(end for end in ends if end < math.inf), 0)))


def _mp4() -> Walk:
    """Go from box to box: a size of 4 bytes, a type, and for the size 1 another size of 8 bytes."""
    place, fragment, first = 0, None, None
    ends = [math.inf]  # of the boxes whose content is being read
    while True:
        while place >= ends[-1]:
            ends.pop()
        header = yield place, 16
        if len(header) < 8:
            return _end(place + (8 if header else 0), ends)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:16], "big") if len(header) >= 16 else 16
        if not size and len(ends) == 1:  # a box up to the end of the file
            return None
        if size < 8 or not kind.isalnum() or place + size > ends[-1] or first not in (None, kind):
            return Broken(place)
        if kind == _FRAGMENT_HEADER and len(header) == 16:
            number = int.from_bytes(header[12:16], "big")
            if fragment is not None and number > fragment + 1:
                return Broken(place)
            fragment = number
        first = _FIRST.get(kind)
        if first:
            ends.append(place + size)
            place += 8
        else:
            place += size


_FLV_TAGS: Final = frozenset({8, 9, 18})  # sound, video, data
_FLV_METADATA: Final = 64 * 2**10  # bytes of a tag with data in which `filesize` is looked for


def _flv() -> Walk:
    """Go from tag to tag: a type, a size of 3 bytes, 7 other bytes, the content, and the size of all this."""
    place = 4 + int.from_bytes((yield 0, 9)[5:9], "big")
    tag = yield place, 11
    declared = total = 0
    while len(tag) == 11:
        if tag[0] & 0xDF not in _FLV_TAGS:  # one bit says that the tag is encrypted
            return Broken(place)
        size = 11 + int.from_bytes(tag[1:4], "big")
        if tag[0] == 18:
            declared = declared or _flv_size((yield place, min(size, _FLV_METADATA)))
        total += size
        tail = yield place + size, 15
        # The other sizes are mistakes of some programs, at which FFmpeg doesn't look for another tag either.
        if len(tail) >= 4 and int.from_bytes(tail[:4], "big") not in (size, size - 1, size - 11 or size, total):
            return Broken(place)
        place, tag = place + size + min(len(tail), 4), tail[4:]
    return End(max(declared, place + (11 if tag else 0)))


def _flv_size(metadata: bytes) -> int:
    at = metadata.find(b"\x00\x08filesize\x00")
    if at < 0 or len(metadata) < at + 19:
        return 0
    (size,) = struct.unpack_from(">d", metadata, at + 11)
    return int(size) if 0 < size < 2**53 else 0


_GIF_EXTENSION, _GIF_IMAGE, _GIF_TRAILER = 0x21, 0x2C, 0x3B
_GIF_DATA: Final = 2**12  # bytes of data that are read together


def _gif() -> Walk:
    """Go from block to block: extensions, and images with their table of colours. Both end with data in pieces."""
    header = yield 0, 13
    if len(header) < 13:
        return End(13)
    place = 13 + _table_size(header[10])
    while True:
        block = yield place, 10
        if not block or block[0] == _GIF_TRAILER:  # some programs leave out the trailer
            return End(place)
        if not block[0]:  # some programs write zeros between blocks
            place += 1
            continue
        if block[0] == _GIF_EXTENSION:
            place += 2
        elif block[0] == _GIF_IMAGE:
            if len(block) < 10:
                return End(place + 10)
            place += 10 + _table_size(block[9]) + 1
        else:
            return Broken(place)
        pieces = True
        while pieces:  # each has its size in front; the last has none
            data, at = (yield place, _GIF_DATA), 0
            if not data:
                return End(place + 1)
            while pieces and at < len(data):
                pieces = data[at] > 0
                at += 1 + data[at]
            place += at


def _table_size(flags: int) -> int:
    """Return the bytes of a table of colours, whose size is in the flags before it."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


_EBML, _SEGMENT, _CLUSTER, _TRACKS, _TRACK = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE
_TRACK_NUMBER, _BLOCK_GROUP, _BLOCK, _SIMPLE_BLOCK = 0xD7, 0xA0, 0xA1, 0xA3
_CHECKSUM: Final = 0xBF
_ANYWHERE: Final = frozenset({0xEC, _CHECKSUM})  # Void, CRC-32
# The elements that each one may hold. What the others hold isn't looked at.
_CHILDREN: Final = {
    # SeekHead, Info, Cues, Tags, Chapters, Attachments
    _SEGMENT: {_TRACKS, _CLUSTER, 0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469} | _ANYWHERE,
    # Timestamp, SilentTracks, Position, PrevSize, EncryptedBlock
    _CLUSTER: {_BLOCK_GROUP, _SIMPLE_BLOCK, 0xE7, 0x5854, 0xA7, 0xAB, 0xAF} | _ANYWHERE,
    # BlockDuration, ReferencePriority, ReferenceBlock, CodecState, BlockAdditions, DiscardPadding, Slices, and two that
    # are no longer used
    _BLOCK_GROUP: {_BLOCK, 0x9B, 0xFA, 0xFB, 0xA4, 0x75A1, 0x75A2, 0x8E, 0xA2, 0xFD} | _ANYWHERE,
    _TRACKS: {_TRACK} | _ANYWHERE,
    _TRACK: None,  # any
}
_TOP: Final = {_EBML, _SEGMENT} | _ANYWHERE
_SUMMED: Final = 2**14  # bytes of a cluster that are read together for its checksum
_MAX_HEADER: Final = 4 + 8 + 8  # bytes of an element's id and size, and of the number of a track behind them


class _Element(NamedTuple):
    """An element of EBML."""

    kind: int  # its id
    header: int  # bytes of the id and the size
    size: float  # bytes of its content; infinite if it is unknown, as in live recordings

    @classmethod
    def read(cls, data: bytes) -> "_Element | None":
        """Read an element's header, or return None if it isn't one. A header that is cut off is longer than `data`."""
        kind_length = 9 - data[0].bit_length()
        if kind_length > 4:
            return None
        kind = int.from_bytes(data[:kind_length], "big")
        if len(data) <= kind_length:
            return cls(kind, kind_length + 1, 0)
        length = 9 - data[kind_length].bit_length()
        if length > 8:
            return None
        size = int.from_bytes(data[kind_length : kind_length + length], "big") & (1 << 7 * length) - 1
        return cls(kind, kind_length + length, math.inf if size == (1 << 7 * length) - 1 else size)


class _Level(NamedTuple):
    """An element whose children are being read."""

    end: float
    children: "set[int] | frozenset[int] | None"  # None if any may be in it


class _Sum:
    """The checksum of a cluster, as far as it was read."""

    def __init__(self, start: int, end: int, declared: bytes) -> None:
        self._start, self._end = start, end
        self._place = start
        self._declared = int.from_bytes(declared, "little")
        self._sum = 0

    def read_to(self, place: int) -> Generator[tuple[int, int], bytes, Damaged | None]:
        """Read up to a place, and say at the end of the cluster whether it is damaged."""
        while self._place < min(place, self._end):
            data = yield self._place, min(place, self._end, self._place + _SUMMED) - self._place
            if not data:
                return None  # the file has ended
            self._sum = zlib.crc32(data, self._sum)
            self._place += len(data)
        return Damaged(self._start, self._end) if place >= self._end and self._sum != self._declared else None


def _matroska() -> Walk:
    """Go from element to element: an id, a size, the content."""
    place = 0
    checksum: _Sum | None = None
    levels = [_Level(math.inf, _TOP)]
    tracks: set[int] = set()
    while True:
        if checksum and (damage := (yield from checksum.read_to(place))):
            return damage
        while place >= levels[-1].end:
            levels.pop()
        head = yield place, _MAX_HEADER
        element = _Element.read(head) if head else None
        if not head or (element and element.header > len(head)):
            return _end(place + bool(head), [level.end for level in levels])
        if len(levels) == 1 and place and not (element and element.kind in _TOP):
            return End(place)  # behind a segment, something else may follow
        if element is None:
            return Broken(place)
        # An element of unknown size ends where one begins that belongs into those around it.
        while levels[-1].end == math.inf and not _holds(levels[-1], element) and len(levels) > 1:
            levels.pop()
        if not _holds(levels[-1], element):
            return Broken(place)
        content = place + element.header
        end = content + element.size
        if end > levels[-1].end or (element.size == math.inf and element.kind not in (_SEGMENT, _CLUSTER)):
            return Broken(place)
        in_cluster = levels[-1].children is _CHILDREN[_CLUSTER] and levels[-1].end < math.inf
        if element.kind == _CHECKSUM and element.size == 4 and in_cluster:
            checksum = _Sum(int(end), int(levels[-1].end), head[element.header :][:4])
        if element.kind == _TRACK_NUMBER and levels[-1].children is None:
            tracks.add(int.from_bytes(head[element.header : element.header + int(element.size)], "big"))
        if element.kind in (_BLOCK, _SIMPLE_BLOCK) and tracks:
            track = _Element.read(b"\xec" + head[element.header :])  # written like the size of an element
            if track is None or track.size not in tracks:
                return Broken(place)
        if element.kind in _CHILDREN:
            levels.append(_Level(end, _CHILDREN[element.kind]))
            place = content
        else:
            place = int(end)


def _holds(level: _Level, element: _Element) -> bool:
    return level.children is None or element.kind in level.children
