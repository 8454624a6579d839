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

from keywarp.videos.transport import SIZES, PacketFinder, counted, pids_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIECE: Final = 2**18  # bytes that are looked at together
_MAX_JUMPS: Final = 1000  # the last ones, which are remembered
_PROGRAMS: Final = 0  # the PID of the table of programs


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
        self._packets = PacketFinder()
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

    def feed_from(self, place: int, data: bytes) -> None:
        """Take bytes of a stream that may not be read in order: only what follows those before is taken.

        Args:
            place: Where the bytes were read, from the start of the stream.
            data: The bytes.
        """
        known = self._received - place
        if 0 <= known < len(data):
            self.feed(memoryview(data)[known:])

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
        data = bytes(self._rest)
        for place, packets in self._packets.find(data):
            self._look_at(packets, self._received - len(data) + place)
        self._rest = bytearray(data[self._packets.rest :])

    def _look_at(self, rows: "NDArray[np.uint8]", start: int) -> None:
        """Follow the counters of packets.

        Args:
            rows: The packets (N, size), each from its sync byte on.
            start: The place of the first sync byte.
        """
        pids, control = pids_of(rows), rows[:, 3]
        content = counted(rows, pids)
        if not len(content):
            return
        # FFmpeg doesn't mark a jump that is announced.
        announced = (control & 0x20 > 0) & (rows[:, 4] > 0) & (rows[:, 5] & 0x80 > 0)
        order = content[np.argsort(pids[content], kind="stable")]
        pid, counter = pids[order], control[order] & 0xF
        # FFmpeg's place of a packet is as far before its end as packets are long, wherever its sync byte is.
        size = rows.shape[1]
        places = start - size + SIZES[0] + order * size
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
        if self._received < end + max(SIZES):
            with self._path.open("rb") as file:
                file.seek(self._received)
                while self._received < end + max(SIZES) and (piece := file.read(_PIECE)):
                    self.feed(piece)
        return super()._between(start, end)
