"""The results of a stream, for the synchronous client."""

import queue
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from keywarp.client.connecting import connection_errors, websocket_address, websocket_options
from keywarp.client.conversation import Conversation, ConversationState
from keywarp.client.errors import FrameError, KeywarpError
from keywarp.client.feed import Feed, StreamSetup
from keywarp.client.frames import Source
from keywarp.client.reconnecting import ATTEMPT_TIMEOUT
from keywarp.client.resources import Closable
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike
from keywarp.client.tables import to_pandas
from keywarp.protocol import Ready

if TYPE_CHECKING:
    import pandas


class StreamCounters:
    """The counts of a stream so far, for the result streams of both clients."""

    _conversation: Conversation
    _feed: Feed | None

    @property
    def reconnects(self) -> int:
        """The number of times that the connection broke and the stream continued over another one."""
        return self._conversation.reconnects

    def __len__(self) -> int:
        """Return the number of frames of the source, for progress bars.

        Raises:
            TypeError: If it is unknown.
        """
        count = self._feed.count if self._feed else None
        if count is None:
            raise TypeError("the number of frames of this stream is unknown")
        return count

    def __bool__(self) -> bool:
        """Return True, also for a stream without frames."""
        return True

    @property
    def unsent(self) -> int:
        """Frames of a live source that newer ones replaced before they were sent, in the mode `latest`."""
        return self._feed.unsent if self._feed else 0

    @property
    def dropped(self) -> int:
        """Frames that the server dropped, or that were under way at a break, in the mode `latest`."""
        return self._conversation.dropped

    @property
    def notes(self) -> tuple[str, ...]:
        """What one should know about the video: by the source, and at the end of the stream by the server."""
        here = self._feed.notes if self._feed else ()
        there = self._conversation.done.notes if self._conversation.done else ()
        return tuple(dict.fromkeys((*here, *there)))

    @property
    def skipped(self) -> int:
        """Frames that the server could not process, with `on_error="skip"`."""
        return self._conversation.errors

    @property
    def missing(self) -> int:
        """Frames so far that are damaged or missing: those that the source lacks, and those that are `skipped`.

        It is the least number that it can be, if the source was cut off and doesn't say how many frames it had.
        """
        said = self._conversation
        lacking = self._feed.missing if self._feed else 0
        if self._feed and said.ended_early:
            lacking = max(lacking, (self._feed.listed or 0) - said.results - said.errors - said.dropped)
        return lacking + said.errors

    @property
    def first_error(self) -> FrameError | None:
        """The error of the first frame that the server could not process, or None."""
        return self._conversation.first_error


class ResultStream(StreamCounters, Closable, Iterator[ProcessedFrame]):
    """An iterator over the results of one source, made by `Client.stream`."""

    _feed: Feed

    def __init__(
        self, server: str, source: SourceLike | Source, setup: StreamSetup, timeout: float, headers: Mapping[str, str]
    ) -> None:
        """Open the source, connect, and wait until the server is ready."""
        self._server = server
        self._timeout = timeout
        self._headers = headers
        self._on_error = setup.on_error
        self._may_drop = setup.hello.mode == "latest"
        self._closed = Event()
        self._connected = ExitStack()  # holds the current connection
        with ExitStack() as opened:
            self._feed = Feed(source, setup)
            self._conversation = Conversation(self._feed.hello, setup.in_flight, setup.reconnect)
            opened.callback(self._feed.close)
            opened.callback(self._connected.close)
            try:
                self._connect(timeout)
            except KeywarpError as error:
                self._reconnect(error)
            # Runs once: at the end, in `close`, or when nothing refers to the stream any more.
            self._finish = weakref.finalize(self, opened.pop_all().close)

    @property
    def ready(self) -> Ready:
        """The server's response to `hello`, with the stream's id, model and interval."""
        assert self._conversation.ready is not None  # __init__ has connected
        return self._conversation.ready

    def __next__(self) -> ProcessedFrame:
        if not self._finish.alive:
            raise StopIteration
        try:
            return self._next()
        except BaseException:  # the end, an error or Ctrl-C
            self.close()
            raise

    def to_pandas(self) -> "pandas.DataFrame":
        """Read the stream to its end, and make a table with one row for each object.

        `keywarp.client.tables.to_pandas` describes it, and takes a list of results, too.
        """
        return to_pandas(self)

    def close(self) -> None:
        """Close the connection and the source. The server then frees the stream."""
        self._closed.set()
        self._finish()
        self._connected.close()  # another thread may have been connecting

    def _next(self) -> ProcessedFrame:
        while self._conversation.state is not ConversationState.DONE:
            self._send()
            match self._receive():
                case ProcessedFrame() as result:
                    return self._feed.with_image(result)
                case FrameError() as error if self._on_error == "raise":
                    raise error
        raise self._feed.error or StopIteration

    def _send(self) -> None:
        # In the mode `latest` results that have arrived come first: reading a camera takes until its next frame.
        while self._conversation.wants_payload and not (self._may_drop and self._connection.has_arrived):
            payload = self._conversation.next_resend or self._feed.next_payload()
            if payload is None:
                self._connection.send(self._conversation.end())
            else:
                self._connection.send(self._conversation.pack(payload, time.monotonic()))

    def _receive(self) -> ProcessedFrame | FrameError | None:
        message, now = self._connection.receive()
        if not isinstance(message, ConnectionClosed):
            return self._conversation.receive(message, now)
        try:
            self._reconnect(self._conversation.closing_error(message.rcvd))
        except KeywarpError as error:
            raise self._feed.error or error from message
        return None

    def _connect(self, timeout: float) -> None:
        self._connected.close()
        self._connection = Connection(self._server, self._feed.stream_id, timeout, self._headers)
        self._connected.callback(self._connection.close)
        self._connection.send(self._conversation.hello())
        while self._conversation.state is ConversationState.HELLO_SENT:
            message, now = self._connection.receive()
            if isinstance(message, ConnectionClosed):
                raise self._conversation.closing_error(message.rcvd) from message
            self._conversation.receive(message, now)

    def _reconnect(self, error: KeywarpError) -> None:
        """Connect again after `error`, if anything is left to do."""
        while not self._closed.is_set():
            wait = self._conversation.prepare_reconnect(error, time.monotonic())
            if wait is None:
                return
            if self._closed.wait(wait):
                break
            try:
                self._connect(min(self._timeout, ATTEMPT_TIMEOUT))
            except KeywarpError as failure:
                error = failure
            else:
                if not self._closed.is_set():  # by another thread
                    return
        raise error


class Connection(Closable):
    """A WebSocket that notes when each message arrives, even if the message is read later."""

    def __init__(self, server: str, stream_id: str, timeout: float, headers: Mapping[str, str]) -> None:
        """Connect.

        Args:
            server: The server's address.
            stream_id: The stream's id.
            timeout: Seconds that connecting may take.
            headers: Headers of the request.

        Raises:
            ConnectError: If no server answers.
            ApiError: If the server refuses the connection.
            ProtocolError: If the server doesn't speak our protocol.
        """
        self._arrived: queue.SimpleQueue[tuple[str | bytes | ConnectionClosed, float]] = queue.SimpleQueue()
        self._opened = ExitStack()
        with connection_errors(server):
            connecting = connect(websocket_address(server, stream_id), **websocket_options(timeout, headers))
            self._socket = self._opened.enter_context(connecting)
        self._thread = Thread(target=_receive, args=(self._socket, self._arrived), name="keywarp-receive", daemon=True)
        self._thread.start()

    def send(self, message: str | bytes) -> None:
        """Send a message. If the connection is closed, `receive` reports that after the earlier messages."""
        with suppress(ConnectionClosed):
            self._socket.send(message)

    @property
    def has_arrived(self) -> bool:
        """Whether a message has arrived, so that `receive` doesn't wait."""
        return not self._arrived.empty()

    def receive(self) -> tuple[str | bytes | ConnectionClosed, float]:
        """Wait for the next message.

        Returns:
            The message, or how the connection was closed; and when it arrived, in monotonic seconds.
        """
        return self._arrived.get()

    def close(self) -> None:
        """Close the connection and wait for the thread that receives."""
        self._opened.close()
        self._thread.join()


def _receive(
    socket: ClientConnection, arrived: queue.SimpleQueue[tuple[str | bytes | ConnectionClosed, float]]
) -> None:
    """Receive until the connection is closed. A thread that holds only the socket doesn't keep the stream alive."""
    while True:
        try:
            message: str | bytes | ConnectionClosed = socket.recv()
        except ConnectionClosed as error:
            message = error
        arrived.put((message, time.monotonic()))
        if isinstance(message, ConnectionClosed):
            return
