"""A real server in a thread of this process, and a plain WebSocket client."""

import asyncio
import inspect
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from keywarp.engines import FrameResult, StreamSession
from keywarp.protocol import (
    SUBPROTOCOL,
    Credit,
    Done,
    Dropped,
    End,
    Error,
    FrameHeader,
    Hello,
    Ready,
    Result,
    ServerMessage,
    pack,
)
from keywarp.server.devices import Device
from keywarp.server.process import Server
from keywarp.server.service import Service
from keywarp.server.settings import Settings
from tests.server.media import jpeg
from tests.server.source_server import SourceServer
from tests.tiny_bundle import tiny_bundle

LANES = 2  # of the processor, whatever machine the tests run on
PATIENCE = 30.0  # seconds that anything may take before a test gives up
T = TypeVar("T")


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


class StreamConnection:
    """The client's side of a WebSocket, as plain as a user's script."""

    def __init__(self, socket: ClientConnection, hello: Hello | None) -> None:
        self.socket = socket
        self.credit = 0
        self.sent = 0
        if hello:
            self.send(hello)
            ready = self.receive()
            assert isinstance(ready, Ready)
            self.ready = ready

    def send(self, message: Hello | End) -> None:
        self.socket.send(message.model_dump_json())

    def frame(self, payload: bytes, id_: int | str | None = None, timestamp: float | None = None) -> None:
        self.sent += 1
        self.socket.send(pack(FrameHeader(id=id_, timestamp=timestamp), payload))

    def receive(self) -> Ready | Result | Credit | Error | Dropped | Done:
        message = ServerMessage.validate_json(self.socket.recv(PATIENCE))
        if not isinstance(message, Done):
            self.credit = message.credit or self.credit
        return message

    def result(self) -> Result:
        while isinstance(message := self.receive(), Credit):
            pass
        assert isinstance(message, Result), message
        return message

    def error(self) -> Error:
        while isinstance(message := self.receive(), Credit):
            pass
        assert isinstance(message, Error), message
        return message

    def response(self) -> Result | Error | Dropped:
        while isinstance(message := self.receive(), Credit):
            pass
        assert isinstance(message, Result | Error | Dropped), message
        return message

    def close_code(self) -> int:
        """Wait for the end of the connection, whatever comes before, and return the close code."""
        try:
            while True:
                self.socket.recv(PATIENCE)
        except ConnectionClosed:
            assert self.socket.close_code is not None
            return self.socket.close_code

    def stream(self, payloads: list[tuple[int | None, bytes]]) -> tuple[list[Result | Error | Dropped], Done]:
        """Send payloads (id, content) as the credit allows, then `end`, and collect all responses."""
        responses: list[Result | Error | Dropped] = []
        waiting = list(payloads)
        while True:
            while waiting and self.sent < self.credit:
                id_, payload = waiting.pop(0)
                self.frame(payload, id_)
                if not waiting:
                    self.send(End())
            match self.receive():
                case Result() | Error() | Dropped() as response:
                    responses.append(response)
                case Done() as done:
                    assert self.close_code() == 1000
                    return responses, done
                case _:
                    pass


class _EndlessSession:
    """A session whose frame takes until it is released."""

    owed = useful = 0

    def __init__(self) -> None:
        self._released = threading.Event()

    def process(self, *_: object, **_options: object) -> FrameResult:
        self._released.wait(2 * PATIENCE)
        raise RuntimeError("this frame has no result")

    def release(self) -> None:
        self._released.set()


def hold(device: Device) -> Callable[[], None]:
    """Keep a device busy with a frame on each lane until the returned function is called.

    These frames count in its queue depth.
    """
    endless = [_EndlessSession() for _ in range(device.executor.lanes)]
    for session in endless:
        device.executor.submit(cast("StreamSession", session), np.zeros((1, 1, 3), np.uint8))

    def release() -> None:
        for session in endless:
            session.release()

    return release


class Running:
    """A server that runs in a thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.service = server.service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="server")

    def start(self) -> None:
        self._thread.start()
        eventually(lambda: self.server.started or not self._thread.is_alive())
        self.url = self.server.url
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE)
        eventually(lambda: self.http.get("/readyz").is_success)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.http.close()

    @contextmanager
    def connect(self, stream: str, hello: Hello | None = None, **options: Any) -> Iterator[StreamConnection]:
        address = self.url.replace("http", "ws", 1) + f"/v1/streams/{stream}/ws"
        options = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "compression": None, "max_size": None} | options
        with connect(address, **options) as socket:
            yield StreamConnection(socket, hello)

    def frame(self, stream: str, body: bytes | None = None, **query: str) -> httpx.Response:
        return self.http.post(f"/v1/streams/{stream}/frames", content=jpeg() if body is None else body, params=query)

    def tasks(self, *kinds: str) -> list[str]:
        """Return the names of the server's running coroutines of some kinds.

        Args:
            kinds: Parts of the coroutines' qualified names; by default those that run for one connection or upload.
        """
        kinds = kinds or ("Connection.", "VideoResponse.", "Pipeline.")
        unknown = [kind for kind in kinds if not any(kind in name for name in coroutine_names())]
        assert not unknown, f"the server has no coroutine with one of these in its name: {unknown}"
        assert self._loop is not None
        names = [str(task.get_coro()) for task in asyncio.all_tasks(self._loop)]
        return [name for name in names if any(kind in name for kind in kinds)]

    def demuxers(self) -> list[threading.Thread]:
        """Return the threads that demux containers."""
        return [thread for thread in threading.enumerate() if thread.name == "keywarp-demuxer"]

    def hold_device(self, number: int = 0) -> Callable[[], None]:
        """Keep one of the devices busy, as `hold` does."""
        return hold(self.service.devices[number])

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's event loop, and return its result."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.server.serve()


def coroutine_names() -> set[str]:
    """Return the qualified names of all coroutine functions in the server's modules."""
    modules = [module for name, module in [*sys.modules.items()] if name.startswith("keywarp.server")]
    members = [member for module in modules for member in vars(module).values()]
    functions = [*members, *(value for member in members if inspect.isclass(member) for value in vars(member).values())]
    coroutines = [function for function in functions if inspect.iscoroutinefunction(function)]
    return {function.__qualname__ for function in coroutines if function.__module__.startswith("keywarp.server")}


Starter = Callable[..., Running]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with one tiny bundle."""
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture
def start(models: Path) -> Iterator[Starter]:
    """Start servers with settings of a test's own."""
    yield from starting(models)


@pytest.fixture(scope="module")
def start_for_all(models: Path) -> Iterator[Starter]:
    """Start servers with settings of a module's own."""
    yield from starting(models)


def starting(models: Path) -> Iterator[Starter]:
    servers: list[Running] = []

    def start_one(make_service: Callable[[Settings], Service] = Service, /, **settings: Any) -> Running:
        server = running(models, make_service, **settings)
        servers.append(server)
        server.start()
        return server

    yield start_one
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Running]:
    """A server that a module's tests share."""
    server = running(models)
    server.start()
    yield server
    server.stop()


def running(models: Path, make_service: Callable[[Settings], Service] = Service, /, **settings: Any) -> Running:
    chosen = Settings(**({"models": models, "port": 0, "backend": "onnxruntime", "lanes": LANES} | settings))
    return Running(Server(chosen, make_service(chosen)))


@pytest.fixture(scope="module")
def web() -> Iterator[SourceServer]:
    """A web server that a module's tests pull from."""
    with SourceServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()
