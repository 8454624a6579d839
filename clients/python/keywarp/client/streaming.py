"""A stream's results, for the client."""

import queue
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from keywarp.client import calls
from keywarp.client.conversation import Conversation, ConversationState
from keywarp.client.errors import FrameError, KeywarpError
from keywarp.client.frames import Source
from keywarp.client.plan import Feed, StreamPlan
from keywarp.client.reconnecting import ATTEMPT_TIMEOUT
from keywarp.client.results import ProcessedFrame
from keywarp.client.sources import SourceLike
from keywarp.protocol import SUBPROTOCOL, Ready

CLOSE_TIMEOUT = 2.0  # seconds to say goodbye in


class ResultStream(Iterator[ProcessedFrame]):
    """The results of one streamed source, made by `Client.stream`. Iterate over it."""

    def __init__(
        self, server: str, source: SourceLike | Source, plan: StreamPlan, timeout: float, headers: Mapping[str, str]
    ) -> None:
        """Open the source, connect, and say hello."""
        self._server = server
        self._timeout = timeout
        self._headers = headers
        self._on_error = plan.on_error
        self._hurried = plan.mode == "latest"
        self._conversation = Conversation(plan.hello(), plan.in_flight, plan.reconnect)
        self._closed = Event()
        self._link = ExitStack()  # the present connection
        with ExitStack() as opened:
            self._feed = Feed(source, plan)
            opened.callback(self._feed.close)
            opened.callback(self._link.close)
            try:
                self._connect(timeout)
            except KeywarpError as error:
                self._reconnect(error)
            # Runs once: at the end, in `close`, or when nobody iterates any more.
            self._finish = weakref.finalize(self, opened.pop_all().close)

    @property
    def ready(self) -> Ready:
        """What the server said of the stream: its id, model and interval."""
        assert self._conversation.ready is not None  # connected in __init__
        return self._conversation.ready

    @property
    def reconnects(self) -> int:
        """How often the connection broke so far and the stream went on over another."""
        return self._conversation.reconnects

    @property
    def unsent(self) -> int:
        """Frames so far of a live source that newer ones replaced before they were sent (mode `latest`)."""
        return self._feed.unsent

    @property
    def dropped(self) -> int:
        """Frames so far that were left out for newer ones, or were under way at a break (mode `latest`)."""
        return self._conversation.dropped

    @property
    def skipped(self) -> int:
        """Frames so far that the server could not process (`on_error="skip"`)."""
        return self._conversation.errors

    def __next__(self) -> ProcessedFrame:
        if not self._finish.alive:
            raise StopIteration
        try:
            return self._next()
        except BaseException:  # the end, an error or Ctrl-C
            self.close()
            raise

    def close(self) -> None:
        """Leave the conversation and let the source go; the server frees the stream."""
        self._closed.set()
        self._finish()
        self._link.close()  # another thread may have been connecting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> ProcessedFrame:
        while self._conversation.state is not ConversationState.DONE:
            self._send()
            match self._receive():
                case ProcessedFrame() as result:
                    return self._feed.with_image(result)
                case FrameError() as error if self._on_error == "raise":
                    raise error
        raise self._feed.fault or StopIteration

    def _send(self) -> None:
        # In a hurry, results that are there come first: reading a camera takes until its next frame.
        while self._conversation.wants_payload and not (self._hurried and self._connection.has_arrived):
            payload = self._conversation.again or self._feed.next_payload()
            if payload is None:
                self._connection.send(self._conversation.end())
            else:
                self._connection.send(self._conversation.pack(payload, time.monotonic()))

    def _receive(self) -> ProcessedFrame | FrameError | None:
        message, now = self._connection.receive()
        if not isinstance(message, ConnectionClosed):
            return self._conversation.receive(message, now)
        try:
            self._reconnect(self._conversation.closed(message.rcvd))
        except KeywarpError as error:
            raise self._feed.fault or error from message
        return None

    def _connect(self, timeout: float) -> None:
        self._link.close()
        self._connection = Connection(self._server, self._feed.stream_id, timeout, self._headers)
        self._link.callback(self._connection.close)
        self._connection.send(self._conversation.hello())
        while self._conversation.state is ConversationState.GREETED:
            message, now = self._connection.receive()
            if isinstance(message, ConnectionClosed):
                raise self._conversation.closed(message.rcvd) from message
            self._conversation.receive(message, now)

    def _reconnect(self, error: KeywarpError) -> None:
        """Connect again after `error`, if there is anything left to be done."""
        while not self._closed.is_set():
            wait = self._conversation.broken(error, time.monotonic())
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


class Connection:
    """A WebSocket whose messages are stamped as they arrive, however late they are asked for."""

    def __init__(self, server: str, stream_id: str, timeout: float, headers: Mapping[str, str]) -> None:
        """Connect.

        Raises:
            ConnectError: No server answers.
            ApiError: The server refuses.
            ProtocolError: It doesn't speak our protocol.
        """
        self._arrived: queue.SimpleQueue[tuple[str | bytes | ConnectionClosed, float]] = queue.SimpleQueue()
        self._opened = ExitStack()
        try:
            connecting = connect(
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
            self._socket = self._opened.enter_context(connecting)
        except (InvalidHandshake, EOFError) as error:
            raise calls.refused(server, error) from error
        except OSError as error:  # TimeoutError too
            raise calls.unreachable(server, error) from error
        self._thread = Thread(target=_stamp, args=(self._socket, self._arrived), name="keywarp-receive", daemon=True)
        self._thread.start()

    def send(self, message: str | bytes) -> None:
        """Send a message; if the connection is closed, `receive` will say so after what came before."""
        with suppress(ConnectionClosed):
            self._socket.send(message)

    @property
    def has_arrived(self) -> bool:
        """Whether `receive` would not wait."""
        return not self._arrived.empty()

    def receive(self) -> tuple[str | bytes | ConnectionClosed, float]:
        """Wait for the next message and say when it came (monotonic seconds); last comes the closing."""
        return self._arrived.get()

    def close(self) -> None:
        """Say goodbye."""
        self._opened.close()
        self._thread.join()


def _stamp(socket: ClientConnection, arrived: queue.SimpleQueue[tuple[str | bytes | ConnectionClosed, float]]) -> None:
    """Stamp messages until the connection is closed. Holds the socket only, so that nobody's stream stays alive."""
    while True:
        try:
            message: str | bytes | ConnectionClosed = socket.recv()
        except ConnectionClosed as error:
            message = error
        arrived.put((message, time.monotonic()))
        if isinstance(message, ConnectionClosed):
            return
