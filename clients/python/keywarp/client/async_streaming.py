"""The results of a stream, for the asynchronous client."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from keywarp.client.connecting import connection_errors, websocket_address, websocket_options
from keywarp.client.conversation import Conversation, ConversationState
from keywarp.client.errors import FrameError, KeywarpError
from keywarp.client.feed import Feed, StreamSetup
from keywarp.client.frames import Source
from keywarp.client.reconnecting import ATTEMPT_TIMEOUT
from keywarp.client.resources import AsyncClosable
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike
from keywarp.client.streaming import StreamCounters
from keywarp.protocol import Ready


class AsyncResultStream(StreamCounters, AsyncClosable, AsyncIterator[ProcessedFrame]):
    """An asynchronous iterator over the results of one source, made by `AsyncClient.stream`."""

    def __init__(
        self, server: str, source: SourceLike | Source, setup: StreamSetup, timeout: float, headers: Mapping[str, str]
    ) -> None:
        """Prepare the stream. The first result, or `async with`, opens the source and the connection."""
        self._server = server
        self._source = source
        self._setup = setup
        self._may_drop = setup.hello.mode == "latest"
        self._timeout = timeout
        self._headers = headers
        self._conversation = Conversation(setup.hello, setup.in_flight, setup.reconnect)
        self._feed: Feed | None = None
        self._opened = AsyncExitStack()
        self._connected = AsyncExitStack()  # holds the current connection
        self._closed = False

    @property
    def ready(self) -> Ready:
        """The server's response to `hello`, with the stream's id, model and interval.

        Raises:
            RuntimeError: If the stream isn't open yet.
        """
        if self._conversation.ready is None:
            raise RuntimeError("the stream isn't open yet: use it in `async with`, or take a result first")
        return self._conversation.ready

    async def __anext__(self) -> ProcessedFrame:
        if self._closed:
            raise StopAsyncIteration
        try:
            return await self._next()
        except BaseException:  # the end, an error or a cancellation
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection and the source. The server then frees the stream."""
        self._closed = True
        await self._opened.aclose()
        await self._connected.aclose()  # another task may have been connecting

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def _open(self) -> Feed:
        if self._feed is not None:
            return self._feed
        feed = await asyncio.to_thread(Feed, self._source, self._setup)
        self._opened.push_async_callback(asyncio.to_thread, feed.close)
        self._opened.push_async_callback(self._connected.aclose)
        self._feed = feed
        self._conversation = Conversation(feed.hello, self._setup.in_flight, self._setup.reconnect)
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
                case FrameError() as error if self._setup.on_error == "raise":
                    raise error
        raise feed.error or StopAsyncIteration

    async def _send(self, feed: Feed) -> None:
        # In the mode `latest` results that have arrived come first: reading a camera takes until its next frame.
        while self._conversation.wants_payload and not (self._may_drop and self._connection.has_arrived):
            payload = self._conversation.next_resend or await asyncio.to_thread(feed.next_payload)
            if payload is None:
                await self._connection.send(self._conversation.end())
            else:
                await self._connection.send(self._conversation.pack(payload, time.monotonic()))

    async def _receive(self, feed: Feed) -> ProcessedFrame | FrameError | None:
        message, now = await self._connection.receive()
        if not isinstance(message, ConnectionClosed):
            return self._conversation.receive(message, now)
        try:
            await self._reconnect(feed, self._conversation.closing_error(message.rcvd))
        except KeywarpError as error:
            raise feed.error or error from message
        return None

    async def _connect(self, feed: Feed, timeout: float) -> None:  # noqa: ASYNC109 (websockets' own)
        await self._connected.aclose()
        self._connection = await AsyncConnection.open(self._server, feed.stream_id, timeout, self._headers)
        self._connected.push_async_callback(self._connection.close)
        # Callers may leave the loop without closing the stream.
        abandoned = weakref.finalize(self, self._connection.abort)
        abandoned.atexit = False
        self._connected.callback(abandoned.detach)
        await self._connection.send(self._conversation.hello())
        while self._conversation.state is ConversationState.HELLO_SENT:
            message, now = await self._connection.receive()
            if isinstance(message, ConnectionClosed):
                raise self._conversation.closing_error(message.rcvd) from message
            self._conversation.receive(message, now)

    async def _reconnect(self, feed: Feed, error: KeywarpError) -> None:
        """Connect again after `error`, if anything is left to do."""
        while not self._closed:
            wait = self._conversation.prepare_reconnect(error, time.monotonic())
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


class AsyncConnection(AsyncClosable):
    """A WebSocket that notes when each message arrives, even if the message is read later."""

    def __init__(self, socket: ClientConnection) -> None:
        """Start to receive on an open socket."""
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[str | bytes | ConnectionClosed, float]] = asyncio.Queue()
        self._task = asyncio.create_task(_receive(socket, self._arrived), name="keywarp-receive")

    @classmethod
    async def open(cls, server: str, stream_id: str, timeout: float, headers: Mapping[str, str]) -> Self:  # noqa: ASYNC109 (websockets' own)
        """Connect. The arguments and errors are those of `streaming.Connection`."""
        with connection_errors(server):
            socket = await connect(websocket_address(server, stream_id), **websocket_options(timeout, headers))
        return cls(socket)

    async def send(self, message: str | bytes) -> None:
        """Send a message. If the connection is closed, `receive` reports that after the earlier messages."""
        with suppress(ConnectionClosed):
            await self._socket.send(message)

    @property
    def has_arrived(self) -> bool:
        """Whether a message has arrived, so that `receive` doesn't wait."""
        return not self._arrived.empty()

    async def receive(self) -> tuple[str | bytes | ConnectionClosed, float]:
        """Wait for the next message.

        Returns:
            The message, or how the connection was closed; and when it arrived, in monotonic seconds.
        """
        return await self._arrived.get()

    async def close(self) -> None:
        """Close the connection and wait for the task that receives."""
        await self._socket.close()
        await self._task

    def abort(self) -> None:
        """Drop the connection without a closing handshake."""
        if not self._loop.is_closed():
            self._socket.transport.abort()


async def _receive(
    socket: ClientConnection, arrived: asyncio.Queue[tuple[str | bytes | ConnectionClosed, float]]
) -> None:
    """Receive until the connection is closed. A task that holds only the socket doesn't keep the stream alive."""
    while True:
        try:
            message: str | bytes | ConnectionClosed = await socket.recv()
        except ConnectionClosed as error:
            message = error
        arrived.put_nowait((message, time.monotonic()))
        if isinstance(message, ConnectionClosed):
            return
