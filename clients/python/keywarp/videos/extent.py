"""How long a file should be by its own words, and whether its parts follow each other, as its bytes arrive.

A transport stream doesn't tell how long it is, nor does a GIF or a stream of unknown length.
"""

from pathlib import Path

from keywarp.videos.structure import Verdict, Walk, walk


class Feed:
    """Gives a walk along a file the bytes that it wants, as they arrive.

    Attributes:
        received: Bytes so far.
        verdict: What the walk returned, once it has ended.
    """

    def __init__(self, steps: Walk) -> None:
        self.received = 0
        self.verdict: Verdict = None
        self._walk = steps
        self._wanted: tuple[int, int] | None = next(self._walk)
        self._kept = b""  # the last bytes received, if they are wanted

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        start = self.received - len(self._kept)
        self.received += len(data)
        while self._wanted and sum(self._wanted) <= self.received:
            place, count = self._wanted
            self._advance(self._piece(data, place - start, count))
        self._kept = self._piece(data, self._wanted[0] - start) if self._wanted else b""

    def end(self) -> None:
        """Give the walk what there is of the bytes that it wants, since no more follow."""
        start = self.received - len(self._kept)
        while self._wanted:
            place, count = self._wanted
            self._advance(self._kept[place - start : place - start + count])

    def _piece(self, data: bytes | memoryview, start: int, count: int | None = None) -> bytes:
        """Return bytes from what was kept and what follows it."""
        kept = len(self._kept)
        if start >= kept:
            return bytes(data[start - kept : None if count is None else start - kept + count])
        rest = self._kept[start:] if count is None else self._kept[start : start + count]
        return rest + bytes(data[: None if count is None else max(count - len(rest), 0)])

    def _advance(self, data: bytes) -> None:
        try:
            self._wanted = self._walk.send(data)
        except StopIteration as stop:
            self._wanted, self.verdict = None, stop.value


class Extent:
    """Reads how long a file should be, from its bytes as they arrive."""

    def __init__(self) -> None:
        self._feed = Feed(walk())

    @property
    def received(self) -> int:
        """Bytes so far."""
        return self._feed.received

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        self._feed.feed(data)

    @property
    def fault(self) -> str | None:
        """What is wrong if the file ends here, in words that follow its name; None if nothing is, or isn't known."""
        self._feed.end()
        return self._feed.verdict.fault(self.received) if self._feed.verdict else None


def file_extent(path: Path) -> str | None:
    """Return what is wrong with a file, as `Extent.fault`."""
    wanted = walk()
    with path.open("rb", buffering=0) as file:
        try:
            place, count = next(wanted)
            while True:
                file.seek(place)
                place, count = wanted.send(file.read(count))
        except StopIteration as stop:
            verdict: Verdict = stop.value
            return verdict.fault(path.stat().st_size) if verdict else None
