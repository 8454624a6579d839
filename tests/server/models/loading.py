"""Load, unload and inspect models of a running server."""

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from keywarp.engines import BackendError, Engine
from tests.server.conftest import Running


class HeldLoads:
    """Loads that wait until they are released."""

    def __init__(self) -> None:
        self.started = 0
        self.at_once = self.most_at_once = 0
        self._released = threading.Event()

    def release(self) -> None:
        self._released.set()

    def wrap(self, open_engine: Callable[..., Engine]) -> Callable[..., Engine]:
        def wrapped(*arguments: object) -> Engine:
            self.started += 1
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
            assert self._released.wait(30)
            try:
                return open_engine(*arguments)
            finally:
                self.at_once -= 1

        return wrapped


def load(server: Running, name: str) -> httpx.Response:
    return server.http.post(f"/v1/models/{name}/load")


def unload(server: Running, name: str, **query: Any) -> httpx.Response:
    return server.http.post(f"/v1/models/{name}/unload", params=query)


def damage(folder: Path, name: str) -> None:
    (folder / name / "head.onnx").write_bytes(b"\0")


def is_closed(engine: Engine) -> bool:
    try:
        engine.prepare(64, 96)
    except BackendError as error:
        return "is closed" in str(error)
    return False


def is_freed(*references: weakref.ref[Engine]) -> bool:
    """Return whether engines are gone from memory. Threads and tasks that used them drop them soon after their work."""
    gc.collect()
    return all(reference() is None for reference in references)
