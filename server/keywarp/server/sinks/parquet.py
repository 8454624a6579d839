"""Write responses to Parquet files for analysis. Needs the extra `parquet`.

    20261123T070000000000Z.parquet    a complete file
    _20261123T080000000000Z.arrows    the journal; readers of the folder skip it because of the _

A Parquet file can't be read before its end is written. So responses go to a journal first: an Arrow stream, which can
be read up to its last whole batch at any time. When the journal is full or old, it is converted to a Parquet file. A
journal that a crash leaves behind is converted when the sink is next used.
"""

import asyncio
import glob
import logging
import os
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import ipc, parquet

from keywarp.protocol.columns import SCHEMA, row
from keywarp.protocol.events import Event, Rules
from keywarp.server.errors import SinkError
from keywarp.server.sinks.atomic_append import append_atomically
from keywarp.server.streams.subscribers import StreamMessage

log = logging.getLogger(__name__)

JOURNAL_BYTES: Final = 64 * 2**20  # largest journal in bytes; it is converted in memory, as a whole
_OWN_NAMES: Final = re.compile(r"_\d{8}T\d{12}Z\.arrows|\d{8}T\d{12}Z\.parquet")


@dataclass(slots=True)
class _Journal:
    """The journal of one folder."""

    path: Path
    rows: int = 0
    bytes: int = 0
    started: float = field(default_factory=time.monotonic)  # monotonic seconds


class ParquetSink:
    """A folder of Parquet files, or one for each stream."""

    def __init__(
        self, folder: str, max_bytes: int, max_rows: int, max_seconds: float, classes: Collection[str] = ()
    ) -> None:
        """Open nothing yet.

        Args:
            folder: The folder, which no other server may write to; `{stream}` in it stands for the stream's id.
            max_bytes: The total size in bytes of a folder's Parquet files. Beyond it the oldest files are deleted.
            max_rows: The number of rows at which a file is finished.
            max_seconds: The time from a file's first row until it is finished.
            classes: Names of classes; only results that show one of them are written. Empty: all responses are.
        """
        self.classes = frozenset(classes)
        self.takes_events = False  # its columns are those of responses
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._max_seconds = max_seconds
        self._journals: dict[Path, _Journal] = {}
        self._recovered = False
        self._timers: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()  # streams may share a folder

    async def announce(self, stream: str, rules: Rules) -> None:
        """Do nothing: events need no preparation."""

    async def deliver(self, stream: str, responses: Sequence[StreamMessage]) -> None:
        """Write one row for each response.

        Raises:
            SinkError: If the journal can't be written or converted.
        """
        folder = Path(self._folder.replace("{stream}", stream))
        async with self._lock:
            try:
                new_journal = await asyncio.to_thread(self._write, folder, stream, responses)
            except OSError as error:
                raise SinkError(f"{error.filename or folder} can't be written: {error.strerror or error}") from error
        if new_journal:
            timer = asyncio.create_task(self._finish_in_time(folder, new_journal))
            self._timers.add(timer)
            timer.add_done_callback(self._timers.discard)

    async def close(self) -> None:
        """Convert all journals. If that fails for one, the next server converts it."""
        for timer in self._timers:
            timer.cancel()
        async with self._lock:
            for folder in [*self._journals]:
                await self._try_to_finish(folder)

    def _write(self, folder: Path, stream: str, responses: Sequence[StreamMessage]) -> _Journal | None:
        """Append to the folder's journal, and return the journal if it is a new one."""
        self._recover()
        journal = self._journals.get(folder)
        if journal and self._is_due(journal):
            self._finish(folder)
            journal = None
        new_journal = None
        if journal is None:
            journal = new_journal = _Journal(folder / f"_{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.arrows")
        batch = pa.RecordBatch.from_pylist(
            [row(stream, response) for response in responses if not isinstance(response, Event)], SCHEMA
        )
        content: bytes = batch.serialize().to_pybytes()
        if new_journal:
            content = SCHEMA.serialize().to_pybytes() + content
        append_atomically(journal.path, content)
        journal.rows += len(responses)
        journal.bytes += len(content)
        self._journals[folder] = journal
        return new_journal

    def _is_due(self, journal: _Journal) -> bool:
        is_old = time.monotonic() - journal.started >= self._max_seconds
        return is_old or journal.rows >= self._max_rows or journal.bytes >= JOURNAL_BYTES

    async def _finish_in_time(self, folder: Path, journal: _Journal) -> None:
        """Convert a journal after `max_seconds`, even if no more responses come."""
        while True:
            await asyncio.sleep(self._max_seconds)
            async with self._lock:
                if self._journals.get(folder) is not journal:
                    return
                await self._try_to_finish(folder)

    async def _try_to_finish(self, folder: Path) -> None:
        try:
            await asyncio.to_thread(self._finish, folder)
        except OSError as error:
            log.warning("%s: the journal can't be converted to a Parquet file yet: %s", folder, error)

    def _recover(self) -> None:
        """Convert the journals that earlier servers have left behind."""
        if self._recovered:
            return
        pattern = glob.escape(self._folder).replace("{stream}", "*")
        for left in map(Path, glob.glob(f"{pattern}/*.arrows")):  # noqa: PTH207 - `Path.glob` takes no absolute pattern
            if _OWN_NAMES.fullmatch(left.name):
                log.info("converting %s, which an earlier server left behind", left)
                _convert(left)
        self._recovered = True

    def _finish(self, folder: Path) -> None:
        """Convert a folder's journal, and delete the oldest Parquet files beyond `max_bytes`."""
        _convert(self._journals[folder].path)
        del self._journals[folder]
        files = sorted(file for file in folder.glob("*.parquet") if _OWN_NAMES.fullmatch(file.name))
        total = sum(file.stat().st_size for file in files)
        for oldest in files[:-1]:
            if total <= self._max_bytes:
                break
            total -= oldest.stat().st_size
            oldest.unlink()


def _convert(journal: Path) -> None:
    """Write a journal's rows to a Parquet file, which is renamed when it is complete, and delete the journal."""
    rows = _read(journal)
    if rows is not None:
        part = journal.with_suffix(".part")
        try:
            parquet.write_table(rows, part, compression="zstd")
            with part.open("rb") as file:
                os.fsync(file.fileno())
        except OSError:
            part.unlink(missing_ok=True)
            raise
        part.replace(journal.with_name(journal.stem.removeprefix("_") + ".parquet"))
    journal.unlink()


def _read(journal: Path) -> pa.Table | None:
    """Return a journal's whole batches, or None if there are none. A crash may have cut off the last one."""
    content = journal.read_bytes()
    batches: list[pa.RecordBatch] = []
    try:
        for batch in ipc.open_stream(content):
            batches.append(batch)  # noqa: PERF402 - keeps the batches before an error
    except (pa.ArrowInvalid, OSError) as error:  # OSError: the file ends within a batch
        log.warning("%s is cut off after %d batches: %s", journal, len(batches), error)
    return pa.Table.from_batches(batches) if batches else None
