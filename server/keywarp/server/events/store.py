"""Keep events and their snapshots in SQLite."""

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Final, TypeVar

from keywarp.protocol.events import Event
from keywarp.server.errors import EventStoreError
from keywarp.server.events.backlog import Backlog
from keywarp.server.events.steady_clock import SteadyClock
from keywarp.server.events.watcher import Report

log = logging.getLogger(__name__)
T = TypeVar("T")
Count = Callable[[str, int], None]  # is told of writes by outcome, and how many there were; on any thread

FILE: Final = "events.sqlite3"
LOCK: Final = "events.lock"  # held by the server that uses the folder
VERSION: Final = 1  # of the tables
CLIP_BYTES: Final = 2**30  # of all clips; beyond it the oldest are deleted
MEMORY_CLIP_BYTES: Final = 64 * 2**20
SWEEP_EVERY: Final = 100  # events
RETRY_EVERY: Final = 10.0  # seconds between attempts to write what the database couldn't take
MAX_QUEUED: Final = 1024  # reports that wait for a disk that doesn't answer
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS events (
        id TEXT PRIMARY KEY, stream TEXT NOT NULL, rule TEXT NOT NULL, start REAL NOT NULL, ended INTEGER NOT NULL,
        content TEXT NOT NULL, snapshot BLOB
    ) STRICT;
    CREATE TABLE IF NOT EXISTS clips (id TEXT PRIMARY KEY, mp4 BLOB NOT NULL) STRICT;
    CREATE INDEX IF NOT EXISTS by_start ON events (start);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events to list."""

    stream: str | None = None
    rule: str | None = None
    since: datetime | None = None  # the earliest start
    until: datetime | None = None  # the latest start, exclusive
    limit: int = 100


class EventStore:
    """All events of the server. It may be used from one event loop.

    The database is used on a thread of its own, one call after the other, so that no frame waits for the disk.
    """

    def __init__(
        self,
        folder: Path | None,
        days: float,
        limit: int,
        count: Count = lambda outcome, number: None,  # noqa: ARG005
        retry_every: float = RETRY_EVERY,
        open_clock: Callable[[float | None], SteadyClock] = SteadyClock,
    ) -> None:
        """Open the database. Events that an earlier server left open end where they started.

        Args:
            folder: The folder of the database, which no other server may use; or None to keep events in memory.
            days: How long events are kept.
            limit: The most events that are kept.
            count: Is told what was `written`, the attempts that `failed`, and what was `missed` for good.
            retry_every: Seconds between attempts to write what the database couldn't take.
            open_clock: Makes the clock by which events grow old, from the start of the newest of them.

        Raises:
            EventStoreError: The database can't be opened, or another server uses the folder.
        """
        self._days = days
        self._limit = limit
        self._clip_bytes = MEMORY_CLIP_BYTES if folder is None else CLIP_BYTES
        self._written = 0
        self._count = count
        self._retry_every = retry_every
        self._open_clock = open_clock
        self._retry: asyncio.TimerHandle | None = None
        self._queued = 0
        self._backlog = Backlog()  # used on the thread only
        self._is_failing = False  # likewise
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keywarp-events")
        self._path = ":memory:" if folder is None else str(folder / FILE)
        self._lock: IO[bytes] | None = None
        try:
            if folder is not None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = _lock(folder)
                (folder / FILE).touch(mode=0o600)  # snapshots show people
            self._thread.submit(self._open).result()
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            if self._lock:
                self._lock.close()
            raise EventStoreError(f"{self._path} can't be opened: {error}") from error

    def write(self, report: Report) -> None:
        """Add an event, or write its new state, without waiting for it. Whoever asks from now on sees it.

        What can't be written, because the disk is full, is kept in memory and tried again until the store is closed.
        """
        if self._queued >= MAX_QUEUED:
            self._count("missed", 1)
            return
        self._queued += 1
        self._flush_soon(report)

    def _flush_soon(self, *reports: Report) -> None:
        done = asyncio.get_running_loop().run_in_executor(self._thread, self._flush, *reports)
        done.add_done_callback(lambda done: self._flushed(done, len(reports)))

    def _flushed(self, done: "asyncio.Future[bool]", count: int) -> None:
        self._queued -= count
        if done.result() and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._retry_every, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._flush_soon()

    async def query(self, query: EventQuery) -> list[Event]:
        """Return events, the newest first."""
        return await self._run(lambda: self._query(query))

    async def get(self, id_: str) -> Event | None:
        """Return an event, or None if there is none."""
        row = await self._run(lambda: self._one("SELECT content FROM events WHERE id = ?", id_))
        return None if row is None or row[0] is None else Event.model_validate_json(row[0])

    async def snapshot(self, id_: str) -> bytes | None:
        """Return the JPEG of an event, or None if there is none."""
        row = await self._run(lambda: self._one("SELECT snapshot FROM events WHERE id = ?", id_))
        return None if row is None or not isinstance(row[0], bytes) else row[0]

    async def write_clip(self, id_: str, mp4: bytes) -> None:
        """Add the clip of an event.

        Raises:
            EventStoreError: The database can't be written. The clip is counted as missed.
        """
        try:
            await self._run(lambda: self._write_clip(id_, mp4))
        except EventStoreError:
            self._count("missed", 1)
            raise
        self._count("written", 1)

    async def clip(self, id_: str) -> bytes | None:
        """Return the clip of an event as an MP4 file, or None if there is none (yet)."""
        row = await self._run(lambda: self._one("SELECT mp4 FROM clips WHERE id = ?", id_))
        return None if row is None or not isinstance(row[0], bytes) else row[0]

    async def close(self) -> None:
        """Write what is still missing, and close the database."""
        if self._retry:
            self._retry.cancel()
        await self._run(self._close)
        self._release()

    def abandon(self) -> None:
        """Close the database before anything ran, because the server can't start."""
        self._thread.submit(lambda: self._database.close()).result()
        self._release()

    def _release(self) -> None:
        self._thread.shutdown()
        if self._lock:
            self._lock.close()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise EventStoreError(f"{self._path}: {error}") from error

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, isolation_level=None)
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise sqlite3.DatabaseError(f"it is of a newer version ({version}, this server reads {VERSION})")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")  # a power failure may take the last events, nothing else
        self._database.executescript(_TABLE)
        self._database.execute(f"PRAGMA user_version = {VERSION}")
        (newest,) = self._database.execute("SELECT max(start) FROM events").fetchone()
        self._clock = self._open_clock(newest)
        for (content,) in self._database.execute("SELECT content FROM events WHERE NOT ended").fetchall():
            event = Event.model_validate_json(content)
            self._write(Report(event.model_copy(update={"state": "ended", "end": event.start})))
        self._sweep()

    def _flush(self, *new: Report) -> bool:
        """Write reports, after those that the database couldn't take before. Returns whether some still wait."""
        lost = sum(self._backlog.add(report) for report in new)
        if lost:
            self._count("missed", lost)
        for report in self._backlog:
            try:
                self._write(report)
            except sqlite3.Error as error:
                self._count("failed", 1)
                if not self._is_failing:
                    log.error("%s: %s; events wait in memory until they can be written", self._path, error)
                self._is_failing = True
                return True
            self._backlog.remove(report)
            self._count("written", 1)
        if self._is_failing:
            log.info("%s: events are written again", self._path)
        self._is_failing = False
        return False

    def _close(self) -> None:
        if self._flush():
            self._count("missed", len(self._backlog))
            log.error("%s: %d events were never written", self._path, len(self._backlog))
        self._database.close()

    def _write(self, report: Report) -> None:
        event = report.event
        content = event.model_dump_json(exclude_none=True)
        self._database.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, content = excluded.content",
            (
                event.id,
                event.stream,
                event.rule,
                event.start.timestamp(),
                event.state == "ended",
                content,
                report.jpeg,
            ),
        )
        self._written += 1
        if self._written % SWEEP_EVERY == 0:
            self._sweep()

    def _write_clip(self, id_: str, mp4: bytes) -> None:
        self._database.execute("INSERT OR REPLACE INTO clips VALUES (?, ?)", (id_, mp4))
        total = 0
        newest = self._database.execute("SELECT id, length(mp4) FROM clips ORDER BY rowid DESC").fetchall()
        for one, size in newest:
            total += size
            if total > self._clip_bytes and one != id_:
                self._database.execute("DELETE FROM clips WHERE id = ?", (one,))

    def _sweep(self) -> None:
        """Delete events that are too old or too many."""
        oldest = self._clock.now() - timedelta(days=self._days).total_seconds()
        self._database.execute("DELETE FROM events WHERE start < ?", (oldest,))
        self._database.execute(
            "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY start DESC LIMIT -1 OFFSET ?)",
            (self._limit,),
        )
        self._database.execute("DELETE FROM clips WHERE id NOT IN (SELECT id FROM events)")

    def _query(self, query: EventQuery) -> list[Event]:
        conditions, values = ["1"], []
        for condition, value in (
            ("stream = ?", query.stream),
            ("rule = ?", query.rule),
            ("start >= ?", query.since and query.since.timestamp()),
            ("start < ?", query.until and query.until.timestamp()),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        where = " AND ".join(conditions)  # of the constants above only
        rows = self._database.execute(
            f"SELECT content FROM events WHERE {where} ORDER BY start DESC, rowid DESC LIMIT ?",
            (*values, query.limit),
        )
        return [Event.model_validate_json(content) for (content,) in rows]

    def _one(self, statement: str, id_: str) -> tuple[str | bytes | None] | None:
        row: tuple[str | bytes | None] | None = self._database.execute(statement, (id_,)).fetchone()
        return row


def _lock(folder: Path) -> IO[bytes]:
    """Lock a folder for this server, as long as the returned file is open.

    Raises:
        OSError: Another server uses the folder, or the lock's file can't be opened.
    """
    file = os.fdopen(os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise OSError("another server uses the folder: give each server a folder of its own") from None
    return file
