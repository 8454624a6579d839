"""A stream's results, for the client for asyncio."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from keywarp.client import calls
from keywarp.client.conversation import Conversation, State
from keywarp.client.errors import FrameError, ProtocolError
from keywarp.client.frames import Source
from keywarp.client.plan import Feed, StreamPlan
from keywarp.client.results import FrameResult
from keywarp.client.sources import SourceLike
from keywarp.client.streaming import CLOSE_TIMEOUT
from keywarp.protocol import SUBPROTOCOL, Ready


class AsyncResultStream(AsyncIterator[FrameResult]):
    """The results of one streamed source, made by `AsyncClient.stream`: the twin of `ResultStream`."""

    def __init__(
        self, server: str, source: SourceLike | Source, plan: StreamPlan, timeout: float, headers: Mapping[str, str]
    ) -> None:
        """Note what to do; the source is opened and the connection made at the first result or on entering."""
        self._server = server
        self._source = source
        self._plan = plan
        self._hurried = plan.mode == "latest"
        self._timeout = timeout
        self._headers = headers
        self._conversation = Conversation(plan.hello(), plan.in_flight)
        self._opened = AsyncExitStack()
        self._closed = False

    @property
    def ready(self) -> Ready:
        """What the server said of the stream: its id, model and interval.

        Raises:
            RuntimeError: It isn't open yet.
        """
        if self._conversation.ready is None:
            raise RuntimeError("the stream isn't open yet: use it in `async with`, or take a result first")
        return self._conversation.ready

    @property
    def dropped(self) -> int:
        """Frames so far that the server left out for newer ones (mode `latest`)."""
        return self._conversation.dropped

    @property
    def skipped(self) -> int:
        """Frames so far that the server could not process (`on_error="skip"`)."""
        return self._conversation.errors

    async def __anext__(self) -> FrameResult:
        if self._closed:
            raise StopAsyncIteration
        try:
            return await self._next()
        except BaseException:  # the end, an error or a cancellation
            await self.close()
            raise

    async def close(self) -> None:
        """Leave the conversation and let the source go; the server frees the stream."""
        self._closed = True
        await self._opened.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self) -> None:
        if self._conversation.state is not State.NEW:
            return
        self._feed = await asyncio.to_thread(Feed, self._source, self._plan)
        self._opened.push_async_callback(asyncio.to_thread, self._feed.close)
        self._connection = await AsyncConnection.open(self._server, self._feed.stream_id, self._timeout, self._headers)
        self._opened.push_async_callback(self._connection.close)
        # For who leaves the loop without closing the stream.
        weakref.finalize(self, self._connection.abort).atexit = False
        await self._connection.send(self._conversation.hello())
        while self._conversation.ready is None:
            await self._receive()

    async def _next(self) -> FrameResult:
        await self._open()
        while self._conversation.state is not State.DONE:
            await self._send()
            match await self._receive():
                case FrameResult() as result:
                    return await asyncio.to_thread(self._feed.with_image, result)
                case FrameError() as error if self._plan.on_error == "raise":
                    raise error
        raise self._feed.fault or StopAsyncIteration

    async def _send(self) -> None:
        while self._conversation.wants_payload and not (self._hurried and self._connection.has_arrived):
            payload = await asyncio.to_thread(self._feed.next_payload)
            if payload is None:
                await self._connection.send(self._conversation.end())
            else:
                await self._connection.send(self._conversation.pack(payload, time.monotonic()))

    async def _receive(self) -> FrameResult | FrameError | None:
        message, now = await self._connection.receive()
        if isinstance(message, ConnectionClosed):
            raise self._feed.fault or self._conversation.closed(message.rcvd) from message
        return self._conversation.receive(message, now)


class AsyncConnection:
    """A WebSocket whose messages are stamped as they arrive, however late they are asked for."""

    def __init__(self, socket: ClientConnection) -> None:
        """Begin to receive on an open socket."""
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[str | bytes | ConnectionClosed, float]] = asyncio.Queue()
        self._task = asyncio.create_task(_stamp(socket, self._arrived), name="keywarp-receive")

    @classmethod
    async def open(cls, server: str, stream_id: str, timeout: float, headers: Mapping[str, str]) -> Self:  # noqa: ASYNC109 (websockets' own)
        """Connect.

        Raises:
            ConnectError: No server answers.
            ApiError: The server refuses.
            ProtocolError: It doesn't speak our protocol.
        """
        try:
            socket = await connect(
                calls.websocket_address(server, stream_id),
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=headers,
                compression=None,
                max_size=calls.MAX_MESSAGE_BYTES,
                # Results are bounded by the credit; so our sending never waits for our own receiving.
                max_queue=None,
                open_timeout=timeout,
                close_timeout=CLOSE_TIMEOUT,
            )
        except InvalidStatus as error:
            raise calls.refused(server, error.response.status_code, bytes(error.response.body or b"")) from error
        except (InvalidHandshake, EOFError) as error:
            raise ProtocolError(f"{server} does not speak {SUBPROTOCOL}: {error}") from error
        except OSError as error:  # TimeoutError too
            raise calls.unreachable(server, error) from error
        return cls(socket)

    async def send(self, message: str | bytes) -> None:
        """Send a message; if the connection is closed, `receive` will say so after what came before."""
        with suppress(ConnectionClosed):
            await self._socket.send(message)

    @property
    def has_arrived(self) -> bool:
        """Whether `receive` would not wait."""
        return not self._arrived.empty()

    async def receive(self) -> tuple[str | bytes | ConnectionClosed, float]:
        """Wait for the next message and say when it came (monotonic seconds); last comes the closing."""
        return await self._arrived.get()

    async def close(self) -> None:
        """Say goodbye."""
        await self._socket.close()
        await self._task

    def abort(self) -> None:
        """Drop the connection without a goodbye."""
        if not self._loop.is_closed():
            self._socket.transport.abort()


async def _stamp(
    socket: ClientConnection, arrived: asyncio.Queue[tuple[str | bytes | ConnectionClosed, float]]
) -> None:
    """Stamp messages until the connection is closed. Holds the socket only, so that nobody's stream stays alive."""
    while True:
        try:
            message: str | bytes | ConnectionClosed = await socket.recv()
        except ConnectionClosed as error:
            message = error
        arrived.put_nowait((message, time.monotonic()))
        if isinstance(message, ConnectionClosed):
            return
