"""A stream's results, for the client for asyncio."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from keywarp.client import calls
from keywarp.client.conversation import Conversation, ConversationState
from keywarp.client.errors import FrameError, KeywarpError
from keywarp.client.frames import Source
from keywarp.client.plan import Feed, StreamPlan
from keywarp.client.reconnecting import ATTEMPT_TIMEOUT
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike
from keywarp.client.streaming import CLOSE_TIMEOUT
from keywarp.protocol import SUBPROTOCOL, Ready


class AsyncResultStream(AsyncIterator[ProcessedFrame]):
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
        self._conversation = Conversation(plan.hello(), plan.in_flight, plan.reconnect)
        self._feed: Feed | None = None
        self._opened = AsyncExitStack()
        self._link = AsyncExitStack()  # the present connection
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
    def reconnects(self) -> int:
        """How often the connection broke so far and the stream went on over another."""
        return self._conversation.reconnects

    @property
    def unsent(self) -> int:
        """Frames so far of a live source that newer ones replaced before they were sent (mode `latest`)."""
        return self._feed.unsent if self._feed else 0

    @property
    def dropped(self) -> int:
        """Frames so far that were left out for newer ones, or were under way at a break (mode `latest`)."""
        return self._conversation.dropped

    @property
    def skipped(self) -> int:
        """Frames so far that the server could not process (`on_error="skip"`)."""
        return self._conversation.errors

    async def __anext__(self) -> ProcessedFrame:
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
        await self._link.aclose()  # another task may have been connecting

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

    async def _open(self) -> Feed:
        if self._feed is not None:
            return self._feed
        feed = await asyncio.to_thread(Feed, self._source, self._plan)
        self._opened.push_async_callback(asyncio.to_thread, feed.close)
        self._opened.push_async_callback(self._link.aclose)
        self._feed = feed
        try:
            await self._connect(feed, self._timeout)
        except KeywarpError as error:
            await self._reconnect(feed, error)
        return feed

    async def _next(self) -> ProcessedFrame:
        feed = await self._open()
        while self._conversation.state is not ConversationState.DONE:
            await self._send(feed)
            match await self._receive(feed):
                case ProcessedFrame() as result:
                    return await asyncio.to_thread(feed.with_image, result)
                case FrameError() as error if self._plan.on_error == "raise":
                    raise error
        raise feed.fault or StopAsyncIteration

    async def _send(self, feed: Feed) -> None:
        while self._conversation.wants_payload and not (self._hurried and self._connection.has_arrived):
            payload = self._conversation.again or await asyncio.to_thread(feed.next_payload)
            if payload is None:
                await self._connection.send(self._conversation.end())
            else:
                await self._connection.send(self._conversation.pack(payload, time.monotonic()))

    async def _receive(self, feed: Feed) -> ProcessedFrame | FrameError | None:
        message, now = await self._connection.receive()
        if not isinstance(message, ConnectionClosed):
            return self._conversation.receive(message, now)
        try:
            await self._reconnect(feed, self._conversation.closed(message.rcvd))
        except KeywarpError as error:
            raise feed.fault or error from message
        return None

    async def _connect(self, feed: Feed, timeout: float) -> None:  # noqa: ASYNC109 (websockets' own)
        await self._link.aclose()
        self._connection = await AsyncConnection.open(self._server, feed.stream_id, timeout, self._headers)
        self._link.push_async_callback(self._connection.close)
        # For who leaves the loop without closing the stream.
        abandoned = weakref.finalize(self, self._connection.abort)
        abandoned.atexit = False
        self._link.callback(abandoned.detach)
        await self._connection.send(self._conversation.hello())
        while self._conversation.state is ConversationState.GREETED:
            message, now = await self._connection.receive()
            if isinstance(message, ConnectionClosed):
                raise self._conversation.closed(message.rcvd) from message
            self._conversation.receive(message, now)

    async def _reconnect(self, feed: Feed, error: KeywarpError) -> None:
        """Connect again after `error`, if there is anything left to be done."""
        while not self._closed:
            wait = self._conversation.broken(error, time.monotonic())
            if wait is None:
                return
            await asyncio.sleep(wait)
            if self._closed:
                break
            try:
                await self._connect(feed, min(self._timeout, ATTEMPT_TIMEOUT))
            except KeywarpError as failure:
                error = failure
            else:
                if not self._closed:  # by another task
                    return
        raise error


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
        except (InvalidHandshake, EOFError) as error:
            raise calls.refused(server, error) from error
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
