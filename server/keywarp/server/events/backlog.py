"""Events that the database couldn't take, and that wait for it."""

from collections.abc import Iterator
from typing import Final

from keywarp.server.events.watcher import Report

MAX_BYTES: Final = 32 * 2**20  # of snapshots
EVENT_BYTES: Final = 1024  # what an event counts for beside its snapshot


class Backlog:
    """Reports of events, the oldest event first. Of each event it keeps the newest state, with its snapshot."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Start empty.

        Args:
            max_bytes: The most memory; beyond it, the oldest events are given up, first those that the database
                doesn't know yet.
        """
        self._max_bytes = max_bytes
        self._bytes = 0
        self._reports: dict[str, Report] = {}  # by event

    def __len__(self) -> int:
        return len(self._reports)

    def __iter__(self) -> Iterator[Report]:
        return iter(tuple(self._reports.values()))

    def add(self, report: Report) -> int:
        """Add a report. Returns how many events were given up for it."""
        id_ = report.event.id
        if before := self._reports.get(id_):
            self._bytes -= _size(before)
            report = Report(report.event, report.jpeg or before.jpeg)
        self._reports[id_] = report
        self._bytes += _size(report)
        lost = 0
        # Last of all the ends of events that the database has as open: they are small, and would stay open.
        for one in sorted(self, key=lambda one: one.jpeg is None):
            if self._bytes <= self._max_bytes:
                break
            self.remove(one)
            lost += 1
        return lost

    def remove(self, report: Report) -> None:
        """Remove a report that was written."""
        self._bytes -= _size(self._reports.pop(report.event.id))


def _size(report: Report) -> int:
    return EVENT_BYTES + len(report.jpeg or b"")
