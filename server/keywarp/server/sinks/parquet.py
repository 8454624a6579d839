"""Results to Parquet files, for analysis. Needs the extra `parquet`.

    20261123T070000000000Z.parquet    complete
    _20261123T080000000000Z.arrows    being written: the _ has readers of the folder leave it out

A Parquet file can't be read before its end is written. So answers go to a journal first, an Arrow stream, which can be
read up to its last batch whatever happens; when it is full or old, it becomes a Parquet file. What a crash leaves
behind does so when the sink is next used.
"""

import asyncio
import base64
import glob
import logging
import os
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyarrow import ipc, parquet

from keywarp.protocol import Dropped, Error, Region, Segmentation
from keywarp.server.errors import SinkError
from keywarp.server.sinks.appending import append
from keywarp.server.streams.subscribers import FrameResponse

log = logging.getLogger(__name__)

JOURNAL_BYTES: Final = 64 * 2**20  # of a journal, which is made a Parquet file as a whole
_OURS: Final = re.compile(r"_\d{8}T\d{12}Z\.arrows|\d{8}T\d{12}Z\.parquet")

_DETECTION: Final = pa.struct(
    {
        "class_id": pa.int32(),
        "name": pa.string(),
        "confidence": pa.float32(),
        "x1": pa.float32(),
        "y1": pa.float32(),
        "x2": pa.float32(),
        "y2": pa.float32(),
    }
)
_REGION: Final = pa.struct(
    {"class_id": pa.int32(), "name": pa.string(), "pixels": pa.int64(), "rle": pa.list_(pa.int32())}
)
SCHEMA: Final = pa.schema(
    {
        "stream": pa.string(),
        "time": pa.timestamp("us", "UTC"),  # when the sink took it
        "type": pa.string(),  # result, error, dropped
        "frame": pa.int64(),
        "id": pa.string(),  # the client's own
        "timestamp": pa.float64(),  # the client's own, or the container's, in seconds
        "width": pa.int32(),
        "height": pa.int32(),
        "kind": pa.string(),
        "key_age": pa.int32(),
        "reason": pa.string(),  # why it is a key frame, or was dropped
        "change": pa.float32(),
        "decode": pa.float64(),  # seconds
        "queue": pa.float64(),
        "inference": pa.float64(),
        "postprocess": pa.float64(),
        "detections": pa.list_(_DETECTION),
        "mask_width": pa.int32(),
        "mask_height": pa.int32(),
        "regions": pa.list_(_REGION),
        "labels_png": pa.binary(),
        "status": pa.int32(),  # of an error
        "problem": pa.string(),
    }
)


@dataclass(slots=True)
class _Journal:
    """The file of a folder that is being written."""

    path: Path
    rows: int = 0
    bytes: int = 0
    begun: float = field(default_factory=time.monotonic)  # monotonic seconds


class ParquetSink:
    """Appends answers to a folder's journal, or to one for each stream, and turns full or old ones to Parquet."""

    def __init__(
        self, folder: str, max_bytes: int, max_rows: int, max_seconds: float, classes: Collection[str] = ()
    ) -> None:
        """Nothing is opened yet.

        Args:
            folder: Where the files are, which no other server may write to; `{stream}` in it is the stream's id.
            max_bytes: Of all Parquet files in a folder: beyond it, the oldest are deleted.
            max_rows: Of a file.
            max_seconds: From a file's first row to its end.
            classes: Only results with one of these; none: all answers.
        """
        self.classes = frozenset(classes)
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._max_seconds = max_seconds
        self._journals: dict[Path, _Journal] = {}
        self._recovered = False
        self._timers: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # streams may share a folder

    async def deliver(self, stream: str, answers: list[FrameResponse]) -> None:
        """Write a row for each."""
        folder = Path(self._folder.replace("{stream}", stream))
        async with self._turn:
            try:
                begun = await asyncio.to_thread(self._write, folder, stream, answers)
            except OSError as error:
                raise SinkError(f"{error.filename or folder} can't be written: {error.strerror or error}") from error
        if begun:
            timer = asyncio.create_task(self._finish_in_time(folder, begun))
            self._timers.add(timer)
            timer.add_done_callback(self._timers.discard)

    async def close(self) -> None:
        """Finish all files; what can't be is done by the next server."""
        for timer in self._timers:
            timer.cancel()
        async with self._turn:
            for folder in [*self._journals]:
                await self._try_to_finish(folder)

    def _write(self, folder: Path, stream: str, answers: list[FrameResponse]) -> _Journal | None:
        """Append to the folder's journal; returns it if it is a new one."""
        self._recover()
        journal = self._journals.get(folder)
        if journal and self._is_due(journal):
            self._finish(folder)
            journal = None
        begun = None
        if journal is None:
            journal = begun = _Journal(folder / f"_{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.arrows")
        batch = pa.RecordBatch.from_pylist([_row(stream, answer) for answer in answers], SCHEMA)
        content: bytes = batch.serialize().to_pybytes()
        if begun:
            content = SCHEMA.serialize().to_pybytes() + content
        append(journal.path, content)
        journal.rows += len(answers)
        journal.bytes += len(content)
        self._journals[folder] = journal
        return begun

    def _is_due(self, journal: _Journal) -> bool:
        old = time.monotonic() - journal.begun >= self._max_seconds
        return old or journal.rows >= self._max_rows or journal.bytes >= JOURNAL_BYTES

    async def _finish_in_time(self, folder: Path, journal: _Journal) -> None:
        """Finish a journal that nothing more comes to."""
        while True:
            await asyncio.sleep(self._max_seconds)
            async with self._turn:
                if self._journals.get(folder) is not journal:
                    return
                await self._try_to_finish(folder)

    async def _try_to_finish(self, folder: Path) -> None:
        try:
            await asyncio.to_thread(self._finish, folder)
        except OSError as error:
            log.warning("%s: the journal can't be made a Parquet file yet: %s", folder, error)

    def _recover(self) -> None:
        """Finish what servers before this one have left behind."""
        if self._recovered:
            return
        pattern = glob.escape(self._folder).replace("{stream}", "*")
        for left in map(Path, glob.glob(f"{pattern}/*.arrows")):  # noqa: PTH207 - `Path.glob` takes none of a root
            if _OURS.fullmatch(left.name):
                log.info("%s was left by an earlier server", left)
                _convert(left)
        self._recovered = True

    def _finish(self, folder: Path) -> None:
        """Make a folder's journal a Parquet file, and delete the oldest ones that are too much."""
        _convert(self._journals[folder].path)
        del self._journals[folder]
        files = sorted(file for file in folder.glob("*.parquet") if _OURS.fullmatch(file.name))
        total = sum(file.stat().st_size for file in files)
        for oldest in files[:-1]:
            if total <= self._max_bytes:
                break
            total -= oldest.stat().st_size
            oldest.unlink()


def _convert(journal: Path) -> None:
    """Make a journal a Parquet file, which has its name when it is complete; then delete the journal."""
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
    """Read what is whole of a journal, for a crash may have broken off its last batch; None: nothing is."""
    content = journal.read_bytes()
    batches: list[pa.RecordBatch] = []
    try:
        for batch in ipc.open_stream(content):
            batches.append(batch)  # noqa: PERF402 - those that came before an error stay
    except (pa.ArrowInvalid, OSError) as error:  # OSError: the end is missing
        log.warning("%s is broken off after %d batches: %s", journal, len(batches), error)
    return pa.Table.from_batches(batches) if batches else None


def _row(stream: str, answer: FrameResponse) -> dict[str, Any]:
    row: dict[str, Any] = {
        "stream": stream,
        "time": datetime.now(UTC),
        "type": answer.type,
        "frame": answer.frame,
        "id": None if answer.id is None else str(answer.id),
    }
    match answer:
        case Dropped():
            return row | {"reason": answer.reason}
        case Error():
            return row | {"status": answer.problem.status, "problem": answer.problem.detail}
    row |= {
        "timestamp": answer.timestamp,
        "width": answer.width,
        "height": answer.height,
        "kind": answer.kind,
        "key_age": answer.key_age,
        "reason": answer.reason,
        "change": answer.change,
        **dict(answer.timings),
    }
    if answer.detections is not None:
        row["detections"] = [
            {"class_id": one.class_id, "name": one.name, "confidence": one.confidence}
            | dict(zip(("x1", "y1", "x2", "y2"), one.xyxy, strict=True))
            for one in answer.detections
        ]
    if found := answer.segmentation:
        row |= {
            "mask_width": found.width,
            "mask_height": found.height,
            "regions": [_region(found, region) for region in found.regions],
            "labels_png": base64.b64decode(found.labels_png) if found.labels_png else None,
        }
    return row


def _region(found: Segmentation, region: Region) -> dict[str, Any]:
    return {
        "class_id": region.class_id,
        "name": region.name,
        "pixels": round(region.area * found.width * found.height),
        "rle": region.rle.counts if region.rle else None,
    }
