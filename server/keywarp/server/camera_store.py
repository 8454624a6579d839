"""Keep the cameras that were added while the server ran, in SQLite, so that they survive a restart.

The database holds the cameras' passwords as they are, because the server needs them. Only its user may read it.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from keywarp.protocol import CreateStream
from keywarp.protocol.events import Rules
from keywarp.server.errors import CameraStoreError

T = TypeVar("T")

FILE: Final = "cameras.sqlite3"
VERSION: Final = 1  # of the table
_TABLE: Final = "CREATE TABLE IF NOT EXISTS cameras (id TEXT PRIMARY KEY, content TEXT NOT NULL) STRICT"


class StoredCamera(BaseModel):
    """A camera as it was asked for."""

    model_config = ConfigDict(frozen=True)

    request: CreateStream
    owner: str = ""  # the name of the API key that it counts towards; empty without keys
    paused: bool = False
    rules: Rules | None = None


class CameraStore:
    """The database of cameras. It may be used from one event loop."""

    def __init__(self, folder: Path) -> None:
        """Open the database, and create it if it is missing.

        Args:
            folder: The folder of the database, which no other server may use.

        Raises:
            CameraStoreError: The database can't be opened, or another server uses it.
        """
        self._path = folder / FILE
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keywarp-cameras")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            self._path.chmod(0o600)  # it may have been copied here
            self._thread.submit(self._open).result()
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            raise CameraStoreError(f"the cameras in {self._path} can't be read: {error}") from error

    async def read(self) -> dict[str, StoredCamera]:
        """Return all cameras by id, in the order in which they were added.

        Raises:
            CameraStoreError: The database can't be read, or holds something else.
        """
        rows = await self._run(
            lambda: self._database.execute("SELECT id, content FROM cameras ORDER BY rowid").fetchall()
        )
        try:
            return {id_: StoredCamera.model_validate_json(content) for id_, content in rows}
        except ValidationError as error:
            raise CameraStoreError(f"the cameras in {self._path} can't be read: they are of a newer version") from error

    async def write(self, id_: str, camera: StoredCamera) -> None:
        """Add a camera, or replace it.

        Raises:
            CameraStoreError: The database can't be written.
        """
        statement = "INSERT INTO cameras VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET content = excluded.content"
        content = camera.model_dump_json(exclude_none=True)
        await self._run(lambda: self._database.execute(statement, (id_, content)))

    async def remove(self, id_: str) -> None:
        """Remove a camera. Removing it again does nothing.

        Raises:
            CameraStoreError: The database can't be written.
        """
        await self._run(lambda: self._database.execute("DELETE FROM cameras WHERE id = ?", (id_,)))

    async def close(self) -> None:
        """Close the database."""
        await self._run(self._database.close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise CameraStoreError(f"the cameras in {self._path} can't be kept: {error}") from error

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, timeout=1.0, isolation_level=None)
        # Two servers would pull the same cameras. The lock is held from the first write on.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            self._database.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise sqlite3.OperationalError(f"{error}; another server uses this folder") from error
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise sqlite3.DatabaseError(f"it is of a newer version ({version}, this server reads {VERSION})")
        self._database.execute(_TABLE)
        self._database.execute(f"PRAGMA user_version = {VERSION}")
        self._database.execute("COMMIT")
