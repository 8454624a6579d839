"""Find where packets of a transport stream are missing, and where recordings were joined (`cat a.ts b.ts`).

Each packet of a stream (PID) that has content counts up a number of 4 bits (ISO 13818-1, 2.4.3.3), so that it jumps
where packets are missing. It jumps as well where another recording begins. But there the tables come first, and their
counters start over, too.
"""

from bisect import bisect_left
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIZES: Final = (188, 192, 204)  # bytes of a packet: plain, with a time stamp in front, with a checksum behind
_SYNC: Final = 0x47  # the first byte of a plain packet
_SURE: Final = 5  # packets in a row by which their size is known
_PIECE: Final = 2**18  # bytes that are looked at together
_WINDOW: Final = 2**14  # of them, in which the beginning of packets is looked for
_MAX_JUMPS: Final = 1000  # the last ones, which are remembered
_PROGRAMS, _STUFFING = 0, 0x1FFF  # PIDs: the table of programs, and packets without meaning


class _Jump(NamedTuple):
    """A packet whose counter isn't the next one."""

    place: int  # in bytes from the start
    pid: int
    joint: bool  # whether another recording begins, or else packets are missing


class Continuity:
    """Follows the counters of a transport stream, from its bytes as they arrive."""

    def __init__(self) -> None:
        self._received = 0  # bytes
        self._rest = bytearray()  # the last of them, not looked at yet
        self._size = 0  # of a packet, in bytes; 0 while it isn't known
        self._last: dict[int, tuple[int, int]] = {}  # the last packet with content of each PID: its place, its counter
        self._table = (-1, 0)  # the place and counter of the last table of programs
        self._jumped = -1  # the place of the last packet whose counter jumped
        self._jumps: deque[_Jump] = deque(maxlen=_MAX_JUMPS)

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream."""
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            self._received += len(piece)
            self._rest += piece
            if len(self._rest) >= _PIECE:
                self._read()

    def joined(self, start: int, end: int) -> bool:
        """Return whether another recording begins behind a place, up to another.

        Args:
            start: A place in bytes, from the start of what was fed.
            end: Another place, before the end of what was fed.
        """
        return any(jump.joint for jump in self._between(start, end))

    def broken(self, pid: int, start: int, end: int) -> bool:
        """Return whether packets of a PID are missing behind a place, up to another, as in `joined`."""
        return any(jump.pid == pid and not jump.joint for jump in self._between(start, end))

    def _between(self, start: int, end: int) -> list[_Jump]:
        if end >= self._received - len(self._rest):
            self._read()
        return [jump for jump in self._jumps if start < jump.place <= end]

    def _read(self) -> None:
        """Look at all whole packets of what has arrived."""
        data, place = bytes(self._rest), 0
        while True:
            if not self._size:
                place, self._size = _aligned(data, place)
            count = (len(data) - place) // self._size if self._size else 0
            if not count:
                break
            rows = np.frombuffer(data, np.uint8, count * self._size, place).reshape(count, self._size)
            whole = rows[:, 0] == _SYNC
            good = count if whole.all() else int(whole.argmin())
            self._look_at(rows[:good], self._received - len(data) + place)
            place += good * self._size
            if good < count:
                self._size = 0
        self._rest = bytearray(data[place:])

    def _look_at(self, rows: "NDArray[np.uint8]", start: int) -> None:
        """Follow the counters of packets.

        Args:
            rows: The packets (N, size), each from its sync byte on.
            start: The place of the first sync byte.
        """
        pids = (rows[:, 1].astype(np.uint16) & 0x1F) << 8 | rows[:, 2]
        control = rows[:, 3]
        counted = np.flatnonzero((control & 0x10 > 0) & (pids != _STUFFING))
        if not len(counted):
            return
        # FFmpeg doesn't mark a jump that is announced.
        announced = (control & 0x20 > 0) & (rows[:, 4] > 0) & (rows[:, 5] & 0x80 > 0)
        order = counted[np.argsort(pids[counted], kind="stable")]
        pid, counter = pids[order], control[order] & 0xF
        # FFmpeg's place of a packet is as far before its end as packets are long, wherever its sync byte is.
        places = start - self._size + _SIZES[0] + order * self._size
        before, counter_before = np.roll(places, 1), np.roll(counter, 1)
        known = np.ones(len(order), bool)
        firsts = np.flatnonzero(np.append(True, pid[1:] != pid[:-1]))
        for first, last in zip(firsts, np.append(firsts[1:], len(order)) - 1, strict=True):
            seen = self._last.get(int(pid[first]))
            known[first] = seen is not None
            before[first], counter_before[first] = seen or (0, 0)
            self._last[int(pid[first])] = int(places[last]), int(counter[last])
        jumps = np.flatnonzero(known & ~announced[order] & (counter != (counter_before + 1 & 0xF)))
        programs = pid == _PROGRAMS
        tables = [self._table, *zip(places[programs].tolist(), counter[programs].tolist(), strict=True)]
        for jump in jumps[np.argsort(order[jumps])]:
            place = int(places[jump])
            table, table_counter = tables[bisect_left(tables, (place, 0)) - 1]
            # The tables' counter may go on by chance, but most recordings begin with all counters at 0.
            joint = table > before[jump] and (self._jumped > before[jump] or table_counter == counter[jump] == 0)
            if joint or counter[jump] != counter_before[jump]:  # a packet may come twice
                self._jumps.append(_Jump(place, int(pid[jump]), bool(joint)))
            self._jumped = place
        self._table = tables[-1]


class FileContinuity(Continuity):
    """Follows the counters of a file as far as they are asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def _between(self, start: int, end: int) -> list[_Jump]:
        if self._received < end + max(_SIZES):
            with self._path.open("rb") as file:
                file.seek(self._received)
                while self._received < end + max(_SIZES) and (piece := file.read(_PIECE)):
                    self.feed(piece)
        return super()._between(start, end)


def _aligned(data: bytes, place: int) -> tuple[int, int]:
    """Return where the next packets begin, and their size; or the last place at which they may, and 0."""
    while len(data) - place >= _SURE * max(_SIZES):
        syncs = np.frombuffer(data, np.uint8, min(len(data) - place, _WINDOW), place) == _SYNC
        starts = len(syncs) - (_SURE - 1) * max(_SIZES)
        found = []
        for size in _SIZES:
            hits = np.logical_and.reduce([syncs[number * size :][:starts] for number in range(_SURE)])
            if hits.any():
                found.append((int(hits.argmax()), size))
        if found:
            offset, size = min(found)
            return place + offset, size
        place += starts
    return place, 0
