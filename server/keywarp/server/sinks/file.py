"""Write responses to files of JSON lines."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from keywarp.protocol.events import Rules
from keywarp.server.errors import SinkError
from keywarp.server.sinks.atomic_append import append_atomically
from keywarp.server.streams.subscribers import StreamMessage

EXCLUDED: Final = {"snapshot_jpeg"}  # the server keeps it


class FileSink:
    """A file of JSON lines, or one for each stream. A full file is renamed `NAME.1`, as log files are."""

    def __init__(self, path: str, max_bytes: int, classes: Collection[str] = ()) -> None:
        """Open nothing yet.

        Args:
            path: The file's path; `{stream}` in it stands for the stream's id.
            max_bytes: The largest size of a file in bytes.
            classes: Names of classes; only results that show one of them are written. Empty: all responses are.
        """
        self.classes = frozenset(classes)
        self.takes_events = True
        self._path = path
        self._max_bytes = max_bytes
        self._lock = asyncio.Lock()  # streams may share a file

    async def announce(self, stream: str, rules: Rules) -> None:
        """Do nothing: events need no preparation."""

    async def deliver(self, stream: str, responses: Sequence[StreamMessage]) -> None:
        """Write one line for each response.

        Raises:
            SinkError: If the file can't be written.
        """
        if not responses:
            return
        lines = b"".join(
            response.model_dump_json(exclude_none=True, exclude=EXCLUDED).encode() + b"\n" for response in responses
        )
        async with self._lock:
            try:
                await asyncio.to_thread(self._append, Path(self._path.replace("{stream}", stream)), lines)
            except OSError as error:
                raise SinkError(f"{error.filename or self._path} can't be written: {error.strerror}") from error

    async def close(self) -> None:
        """Do nothing: no file stays open between deliveries."""

    def _append(self, path: Path, lines: bytes) -> None:
        if path.exists() and path.stat().st_size + len(lines) > self._max_bytes:
            path.replace(path.with_name(path.name + ".1"))
        append_atomically(path, lines)
