"""Cameras that send frames over a WebSocket or over REST, all on one event loop."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import httpx
from pydantic_core import from_json
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from keywarp.cli.errors import CommandError
from keywarp.commands.load_bench.tally import Tally
from keywarp.protocol import SUBPROTOCOL, Done, End, FrameHeader, Hello, StreamOptions, pack

PATIENCE: Final = 10.0  # seconds for the responses to the last frames
ROOM: Final = 64 * 2**20  # bytes that wait in this process, so that sending never waits for the server
IN_FLIGHT: Final = 8  # requests of a camera over REST, as many as a WebSocket's credit


class RefusedError(Exception):
    """The server refused a stream: it can't take so many."""


class Camera(Protocol):
    """One camera of a step. Frames have numbers from 0."""

    async def open(self) -> None:
        """Open the stream.

        Raises:
            CommandError: The server can't be reached.
            RefusedError: It refuses the stream.
        """

    async def send(self, number: int, due: float) -> None:
        """Send a frame that is due, or count it as lost if there is no room for it."""

    async def close(self) -> None:
        """Wait for the responses to all frames, and end the stream. Those that are missing count as lost."""


class WebSocketCamera:
    """Sends frames over a WebSocket."""

    def __init__(self, server: str, stream: str, hello: Hello, payloads: Sequence[bytes], tally: Tally) -> None:
        """Prepare for a server's URL."""
        self._server = server
        self._address = f"ws{server.removeprefix('http')}/v1/streams/{stream}/ws"
        self._hello = hello
        self._payloads = payloads
        self._tally = tally
        self._waiting: dict[int, float] = {}  # when each frame without a response was due
        self._sent = self._credit = 0
        self._broken: str | None = None

    async def open(self) -> None:
        """Open the stream."""
        options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None, "proxy": None}
        try:
            self._socket: ClientConnection = await connect(
                self._address, subprotocols=[Subprotocol(SUBPROTOCOL)], write_limit=ROOM, max_queue=None, **options
            )
        except (OSError, WebSocketException) as error:
            raise CommandError(f"can't connect to {self._server!r}: {error}") from error
        await self._socket.send(self._hello.model_dump_json(exclude_none=True))
        ready = from_json(await self._socket.recv())
        if ready["type"] != "ready":
            await self._socket.close()
            raise RefusedError(ready.get("problem", {}).get("detail", str(ready["type"])))
        self._credit = ready["credit"]
        self._receiver = asyncio.create_task(self._receive())

    async def send(self, number: int, due: float) -> None:
        """Send a frame."""
        if self._broken or self._sent >= self._credit:
            self._tally.lose(due, self._broken or "no credit")
            return
        self._sent += 1
        self._waiting[number] = due
        message = pack(FrameHeader(id=number), self._payloads[number % len(self._payloads)])
        with suppress(WebSocketException):  # the receiver notices
            await self._socket.send(message)

    async def close(self) -> None:
        """End the stream."""
        with suppress(WebSocketException):
            await self._socket.send(End().model_dump_json())
        await asyncio.wait([self._receiver], timeout=PATIENCE)
        self._receiver.cancel()
        for due in self._waiting.values():
            self._tally.lose(due, self._broken or "no response")
        await self._socket.close()

    async def _receive(self) -> None:
        now = asyncio.get_running_loop().time
        try:
            async for text in self._socket:
                at, message = now(), from_json(text)
                self._credit = message.get("credit") or self._credit
                due = self._waiting.pop(message.get("id"), None)
                if due is not None:
                    self._tally.respond(due, at, message)
                elif message["type"] == Done.model_fields["type"].default:
                    return
                elif message.get("fatal"):
                    self._broken = f"stream ended: {message['problem']['detail']}"
        except WebSocketException:
            pass
        self._broken = self._broken or "connection lost"


class RestCamera:
    """Sends each frame as a request of its own, several at a time if responses take longer than a frame."""

    def __init__(
        self, http: httpx.AsyncClient, stream: str, options: StreamOptions, payloads: Sequence[bytes], tally: Tally
    ) -> None:
        """Prepare for the server of a client."""
        self._http = http
        self._path = f"/v1/streams/{stream}"
        self._options = options
        self._payloads = payloads
        self._tally = tally
        self._requests: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open the stream."""
        try:
            created = await self._http.put(self._path, json=self._options.model_dump(exclude_none=True, mode="json"))
        except httpx.TransportError as error:
            raise CommandError(f"can't connect to {self._http.base_url}: {error}") from error
        if created.is_error:
            raise RefusedError(created.json().get("detail", created.text))

    async def send(self, number: int, due: float) -> None:
        """Send a frame."""
        if len(self._requests) >= IN_FLIGHT:
            self._tally.lose(due, "no credit")
            return
        request = asyncio.create_task(self._request(self._payloads[number % len(self._payloads)], due))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)

    async def close(self) -> None:
        """End the stream."""
        if self._requests:
            _, late = await asyncio.wait(self._requests, timeout=PATIENCE)
            for request in late:
                request.cancel()
        with suppress(httpx.TransportError):
            await self._http.delete(self._path)

    async def _request(self, payload: bytes, due: float) -> None:
        try:
            response = await self._http.post(f"{self._path}/frames", content=payload)
        except asyncio.CancelledError:
            self._tally.lose(due, "no response")
            raise
        except httpx.TransportError:
            self._tally.lose(due, "connection lost")
            return
        at = asyncio.get_running_loop().time()
        if response.is_error:
            self._tally.lose(due, f"error {response.status_code}")
        else:
            self._tally.respond(due, at, from_json(response.content))
