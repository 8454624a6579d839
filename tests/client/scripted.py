"""Servers with real sockets and protocols whose messages are scripted by a test."""

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
from pydantic import BaseModel
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from keywarp.protocol import (
    SUBPROTOCOL,
    ClientMessage,
    CloseCode,
    Done,
    End,
    Error,
    FrameHeader,
    Hello,
    Problem,
    Ready,
    unpack,
)
from tests.client.media import MODEL, result

Script = Callable[["Peer"], None]


class Peer:
    """The server's end of one conversation."""

    def __init__(self, connection: ServerConnection, credit: int) -> None:
        self.connection = connection
        self.credit = credit
        self.hello: Hello | None = None

    def send(self, message: BaseModel) -> None:
        self.connection.send(message.model_dump_json())

    def greet(self, max_message_bytes: int = 2**20) -> Hello:
        """Receive `hello` and answer it."""
        hello = ClientMessage.validate_json(self.connection.recv())
        assert isinstance(hello, Hello)
        self.send(
            Ready(
                stream="s",
                model=MODEL,
                interval=hello.interval or MODEL.key_interval,
                schedule=hello.schedule or "fixed",
                credit=self.credit,
                max_message_bytes=max_message_bytes,
            )
        )
        return hello

    def take(self) -> tuple[FrameHeader, bytes] | None:
        """Receive a frame, or return None at the end of the stream."""
        message = self.connection.recv()
        if isinstance(message, str):
            assert isinstance(ClientMessage.validate_json(message), End)
            return None
        header, payload = unpack(message)
        return header, bytes(payload)

    def answer(self, frame: int, header: FrameHeader) -> None:
        """Send a result, and credit for another frame."""
        self.credit += 1
        labels = np.full((3, 4), frame % 3, np.uint8)
        self.send(result(frame, id=header.id, timestamp=header.timestamp, labels=labels, credit=self.credit))

    def refuse(self, frame: int, header: FrameHeader) -> None:
        """Send an error for one frame, and credit for another."""
        self.credit += 1
        problem = Problem(title="Bad image", status=422, detail="the JPEG is cut off")
        self.send(Error(problem=problem, fatal=False, frame=frame, id=header.id, credit=self.credit))

    def fail(self, code: CloseCode, detail: str) -> None:
        """Send a fatal error and close the connection."""
        self.send(Error(problem=Problem(title="Failed", status=400, detail=detail), fatal=True))
        self.connection.close(code, detail)

    def finish(self, frames: int) -> None:
        self.send(Done(frames=frames, key_frames=0, errors=0))


def answer_all(peer: Peer) -> None:
    """Answer all images, as a correct server does."""
    peer.greet()
    frames = 0
    while (taken := peer.take()) is not None:
        peer.answer(frames, taken[0])
        frames += 1
    peer.finish(frames)


class ScriptedPeer:
    """A WebSocket server that runs a script with each client.

    Attributes:
        address: The address to give to a client.
        left: Set when a client has closed its connection before the script ended.
        paths: The paths that clients connected to.
        faults: The errors of scripts, which leaving the `with` statement raises.
    """

    def __init__(self, script: Script = answer_all, credit: int = 8) -> None:
        self.left = threading.Event()
        self.paths: list[str] = []
        self.faults: list[Exception] = []
        self._script = script
        self._credit = credit
        self._server = serve(
            self._converse, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=None
        )
        self.address = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def _converse(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        try:
            self._script(Peer(connection, self._credit))
        except ConnectionClosed:
            self.left.set()
        except Exception as fault:  # noqa: BLE001 (raised again in the test)
            self.faults.append(fault)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        if kind is None and self.faults:
            raise self.faults[0]


class ScriptedApi:
    """An HTTP server that gives the same response to every request.

    Attributes:
        address: The address to give to a client.
        requests: The method and target, the headers, and the body of each request.
    """

    def __init__(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        more_headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        requests: list[tuple[str, dict[str, str], bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                requests.append((f"{self.command} {self.path}", headers, self.rfile.read(length)))
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                for name, value in more_headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 (the names that http.server calls)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.requests = requests
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
