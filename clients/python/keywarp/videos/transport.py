"""Find the packets of an MPEG transport stream in its bytes, and take out those that come twice."""

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from keywarp.videos.continuity import Continuity

SIZES: Final = (188, 192, 204)  # bytes of a packet: plain, with a time stamp in front, with a checksum behind
STUFFING: Final = 0x1FFF  # the PID of packets without meaning
_SYNC: Final = 0x47  # the first byte of a plain packet
_SURE: Final = 5  # packets in a row by which their size is known
_WINDOW: Final = 2**14  # bytes in which the beginning of packets is looked for
HEAD_OF_STREAM: Final = (_SURE + 1) * max(SIZES)  # enough bytes to know whether this is one, wherever it was cut
_PIECE: Final = 2**16  # bytes that are read together
_CLOCK: Final = slice(6, 12)  # the bytes of a packet's time (PCR), if it has one


class PacketFinder:
    """Finds the packets in the bytes of a transport stream, also where something else is between them.

    Attributes:
        rest: Where the bytes begin that `find` hasn't looked at, because they are no whole packet yet.
    """

    def __init__(self) -> None:
        self.rest = 0
        self._size = 0  # of a packet, in bytes; 0 while it isn't known

    def find(self, data: bytes | bytearray) -> "Iterator[tuple[int, NDArray[np.uint8]]]":
        """Find all whole packets of the next bytes, which begin with the rest of those before.

        Yields:
            The place in `data` of a packet's sync byte, and the packets (N, size) from there on, as a view. Each begins
            with its sync byte.
        """
        self.rest = 0
        while True:
            if not self._size:
                self.rest, self._size = _aligned(data, self.rest)
            count = (len(data) - self.rest) // self._size if self._size else 0
            if not count:
                return
            rows = np.frombuffer(data, np.uint8, count * self._size, self.rest).reshape(count, self._size)
            whole = rows[:, 0] == _SYNC
            good = count if whole.all() else int(whole.argmin())
            place = self.rest
            self.rest += good * self._size
            if good < count:
                self._size = 0
            yield place, rows[:good]


def pids_of(packets: "NDArray[np.uint8]") -> "NDArray[np.uint16]":
    """Return which stream each packet belongs to."""
    return np.asarray((packets[:, 1].astype(np.uint16) & 0x1F) << 8 | packets[:, 2], np.uint16)


def counted(packets: "NDArray[np.uint8]", pids: "NDArray[np.uint16]") -> "NDArray[np.intp]":
    """Return the numbers of the packets with content, whose counters count up."""
    return np.flatnonzero((packets[:, 3] & 0x10 > 0) & (pids != STUFFING))


def is_transport_stream(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is a transport stream. `HEAD_OF_STREAM` bytes are enough."""
    place, size = _aligned(head, 0)
    return bool(size) and place < max(SIZES)


class Repeats:
    """Takes out packets of a transport stream that come twice, as the standard allows (ISO 13818-1, 2.4.3.3).

    FFmpeg would take the content of both, which damages the picture. What is taken out becomes a packet without
    meaning, so that all others keep their places.
    """

    def __init__(self) -> None:
        self._packets = PacketFinder()
        self._held = b""  # the last bytes, which are no whole packet yet
        self._last: dict[int, bytes] = {}  # the last packet with content of each PID; empty if it was taken out

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take the next bytes of the stream, and return those that are ready to be read."""
        joined = bytearray(self._held)
        joined += data
        for _, packets in self._packets.find(joined):
            self._take_out(packets)
        ready = memoryview(joined)
        self._held = bytes(ready[self._packets.rest :])
        return bytes(ready[: self._packets.rest])

    def end(self) -> bytes:
        """Return the last bytes of the stream."""
        count = len(self._held)
        ready = self.feed(bytes(max(SIZES)))  # completes a packet that lacks only the time stamp of the next one
        held, self._held = self._held, b""
        return (ready + held)[:count]

    def _take_out(self, packets: "NDArray[np.uint8]") -> None:
        pids = pids_of(packets)
        order = counted(packets, pids)
        if not len(order):
            return
        order = order[np.argsort(pids[order], kind="stable")]
        pid, counter = pids[order].tolist(), packets[order, 3] & 0xF
        first = np.append(True, np.diff(pids[order]) != 0)
        before = np.roll(counter, 1)
        before[first] = [(self._last.get(pid[number]) or b"0000")[3] & 0xF for number in np.flatnonzero(first)]

        def plain(number: int) -> bytes:
            return bytes(packets[order[number], : SIZES[0]])

        taken: set[int] = set()
        for number in np.flatnonzero(counter == before).tolist():
            last = self._last.get(pid[number], b"") if first[number] else plain(number - 1)
            if (first[number] or number - 1 not in taken) and _same(last, plain(number)):
                taken.add(number)
        for number in np.flatnonzero(np.append(first[1:], True)).tolist():
            self._last[pid[number]] = b"" if number in taken else plain(number)
        for number in taken:
            packets[order[number], 1:4] = STUFFING >> 8, STUFFING & 0xFF, 0x10


class _File(Protocol):
    """What a file must be able to do to be read here."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def seekable(self) -> bool: ...
    def close(self) -> None: ...


class TransportFile:
    """A file for FFmpeg to read. If it is a transport stream, packets that come twice are taken out."""

    def __init__(self, file: _File, continuity: "Continuity | None" = None) -> None:
        """Take a file that is open at its beginning.

        Args:
            file: The file.
            continuity: Is told all bytes of a transport stream, up to the first that aren't read in order.
        """
        self._file = file
        self._continuity = continuity
        self._taken = 0  # the place up to which the file was read, in bytes
        self._position = self._next = 0  # the places of the next ready byte, and of the next read
        self._ready = b""
        self._repeats: Repeats | None = None  # None if this is no transport stream
        self._known = False  # whether it is known what this is

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes, as the file does."""
        if self._next != self._position:
            self._taken = self._position = self._file.seek(self._next)
            self._ready, self._repeats = b"", self._repeats and Repeats()
        if not self._known:
            self._begin()
        while not self._ready:
            if not (piece := self._take(_PIECE if self._repeats else size)):
                self._ready = self._repeats.end() if self._repeats else b""
                break
            self._ready = self._repeats.feed(piece) if self._repeats else piece
        piece, self._ready = self._ready[:size], self._ready[size:]
        self._position = self._next = self._position + len(piece)
        return piece

    def seekable(self) -> bool:
        """Whether the file can be read from any position."""
        return self._file.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position of the next read, in bytes."""
        if whence == 1:
            offset += self._next
        elif whence == 2:
            offset += self._file.seek(0, 2)
            self._file.seek(self._taken)
        self._next = max(offset, 0)
        return self._next

    def tell(self) -> int:
        """Return the position of the next read, in bytes."""
        return self._next

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _begin(self) -> None:
        """Read enough to know whether this is a transport stream."""
        self._known = True
        head = b""
        while len(head) < HEAD_OF_STREAM and (piece := self._file.read(HEAD_OF_STREAM - len(head))):
            head += piece
        self._taken = len(head)
        if is_transport_stream(head):
            self._repeats = Repeats()
            if self._continuity:
                self._continuity.feed(head)
            head = self._repeats.feed(head)
        self._ready = head

    def _take(self, size: int) -> bytes:
        piece = self._file.read(size)
        if self._repeats and self._continuity:
            self._continuity.feed_from(self._taken, piece)
        self._taken += len(piece)
        return piece


def _same(one: bytes, other: bytes) -> bool:
    """Return whether two packets are the same but for their time (PCR), which is when each was sent."""
    if other[3] & 0x20 and other[4] >= 7 and other[5] & 0x10:
        return one[: _CLOCK.start] + one[_CLOCK.stop :] == other[: _CLOCK.start] + other[_CLOCK.stop :]
    return one == other


def _aligned(data: bytes | bytearray, place: int) -> tuple[int, int]:
    """Return where the next packets begin, and their size; or the last place at which they may, and 0."""
    while len(data) - place >= _SURE * max(SIZES):
        syncs = np.frombuffer(data, np.uint8, min(len(data) - place, _WINDOW), place) == _SYNC
        starts = len(syncs) - (_SURE - 1) * max(SIZES)
        found = []
        for size in SIZES:
            hits = np.logical_and.reduce([syncs[number * size :][:starts] for number in range(_SURE)])
            if hits.any():
                found.append((int(hits.argmax()), size))
        if found:
            offset, size = min(found)
            return place + offset, size
        place += starts
    return place, 0
