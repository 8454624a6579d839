"""Results to files of JSON lines."""

import asyncio
from collections.abc import Collection
from pathlib import Path

from keywarp.server.errors import SinkError
from keywarp.server.sinks.appending import append
from keywarp.server.streams.subscribers import FrameResponse


class FileSink:
    """Appends answers to a file, or one for each stream; when that is full, it is renamed `NAME.1`, as logs are."""

    def __init__(self, path: str, max_bytes: int, classes: Collection[str] = ()) -> None:
        """Nothing is opened yet.

        Args:
            path: The file's; `{stream}` in it stands for the stream's id.
            max_bytes: Of a file.
            classes: Only results with one of these; none: all answers.
        """
        self.classes = frozenset(classes)
        self._path = path
        self._max_bytes = max_bytes
        self._turn = asyncio.Lock()  # streams may share a file

    async def deliver(self, stream: str, answers: list[FrameResponse]) -> None:
        """Write a line for each."""
        lines = b"".join(answer.model_dump_json(exclude_none=True).encode() + b"\n" for answer in answers)
        async with self._turn:
            try:
                await asyncio.to_thread(self._append, Path(self._path.replace("{stream}", stream)), lines)
            except OSError as error:
                raise SinkError(f"{error.filename or self._path} can't be written: {error.strerror}") from error

    async def close(self) -> None:
        """Nothing is left open."""

    def _append(self, path: Path, lines: bytes) -> None:
        if path.exists() and path.stat().st_size + len(lines) > self._max_bytes:
            path.replace(path.with_name(path.name + ".1"))
        append(path, lines)
