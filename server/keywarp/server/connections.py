"""Connections: how many there may be, for how long they may keep the server waiting, and what they may cost.

uvicorn leaves all this to a proxy. Here no client takes files, memory or processor time without bound by what it sends
before its request is complete, by how it sends it, or by not reading what it asked for.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame
from websockets.protocol import State

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

HEAD_TIMEOUT: Final = 10.0  # seconds for the head of a request, from the connection or the response before
CLOSE_TIMEOUT: Final = 5.0  # seconds in which a closing connection must take what was sent to it
SHARE: Final = 0.25  # of the event loop's time that reading one connection may take
THROTTLED_SHARE: Final = 0.5  # of it that reading all connections that want more may take together
BURST: Final = 0.1  # seconds of it that reading may take at once
SLICE: Final = 8 * 2**10  # bytes that are read at a time
TURN: Final = 0.005  # seconds of reading after which the other connections' turn comes
MAX_FRAGMENTS: Final = 16_384  # of one WebSocket message
RESERVED_FILES: Final = 24  # for sources, sinks, uploads and models
FEWEST: Final = 8  # connections, however few files the process may open
BACKLOG: Final = 2048  # connections that the system holds until they are accepted
MAX_FILES: Final = 65_536  # that a server can make use of
LOG_INTERVAL: Final = 60.0  # seconds between two log lines about the same limit


class Connections(ServerState):
    """All connections of a server, as uvicorn's protocols share them.

    Attributes:
        limit: The most connections at once.
        throttled: The connections whose reading waits, because it took too much time.
        refused: The number of connections that were closed for lack of room.
    """

    def __init__(self, limit: int) -> None:
        """Begin without connections."""
        super().__init__()
        self.limit = limit
        self.throttled: set[object] = set()
        self.refused = 0
        self._closing: dict[object, float] = {}  # since when each one is closing, in monotonic seconds
        self._logged = -LOG_INTERVAL

    def make_room(self, newest: "HttpProtocol") -> None:
        """If there are too many connections, close the one that waits longest for its request, or else the newest."""
        if len(self.connections) <= self.limit:
            return
        self.refused += 1
        if (now := time.monotonic()) - self._logged > LOG_INTERVAL:
            self._logged = now
            log.warning(
                "there are %d connections already, %d refused so far: raise `--max-connections` or the limit of files",
                self.limit,
                self.refused,
            )
        waiting = [one for one in self.connections if one is not newest and _waits_since(one) is not None]
        oldest = min(waiting, key=lambda one: _waits_since(one) or 0.0, default=newest)
        oldest.transport.abort()
        self.connections.discard(oldest)  # its file is closed in a moment; others may arrive before

    def sweep(self) -> None:
        """End connections whose request is overdue, or that don't take the last bytes. Call this every second."""
        now = time.monotonic()
        closing: dict[object, float] = {}
        for connection in [*self.connections]:
            since = _waits_since(connection)
            if connection.transport.is_closing():
                closing[connection] = self._closing.get(connection, now)
                if now - closing[connection] > CLOSE_TIMEOUT:
                    connection.transport.abort()
            elif isinstance(connection, H11Protocol) and since is not None and now - since > HEAD_TIMEOUT:
                connection.transport.abort()
        self._closing = closing


class _Metered:
    """A mixin of protocols that reads what arrives in slices, and slowly if that takes too much of the loop's time.

    A few hundred kilobytes can hold tens of thousands of the smallest fragments, chunks or pings.
    """

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop

    _owed = 0.0  # seconds of reading, less those that were allowed since
    _counted = 0.0  # until when, in monotonic seconds
    _held = b""  # bytes that wait
    waiting_since: float | None  # for a request; monotonic seconds
    limits: Connections

    def _read(self, data: bytes, read: Callable[[bytes], None]) -> None:
        """Read as much as the share of time allows, and hold back the rest."""
        if self._held or self in self.limits.throttled:  # uvicorn has gone on reading
            self._held += data
            self.transport.pause_reading()
            return
        turn = time.monotonic()
        for start in range(0, len(data), SLICE):
            started = time.monotonic()
            read(data[start : start + SLICE] if len(data) > SLICE else data)
            now = time.monotonic()
            self._owed = max(0.0, self._owed - (started - self._counted) * SHARE) + now - started
            self._counted = now
            if self.transport.is_closing():
                return
            if self._owed > BURST or now - turn > TURN:
                self._held = data[start + SLICE :]
                self._wait(read)
                return

    def _wait(self, read: Callable[[bytes], None]) -> None:
        """Go on in the next turn, or once less time is owed."""
        if self._owed <= BURST:
            if self._held:
                self.transport.pause_reading()
                self.loop.call_soon(self._go_on, read)
            return
        self.transport.pause_reading()
        throttled = self.limits.throttled
        throttled.add(self)
        share = min(SHARE, THROTTLED_SHARE / len(throttled))
        self.loop.call_later(self._owed / 2 / share, self._go_on, read)

    def _go_on(self, read: Callable[[bytes], None]) -> None:
        self.limits.throttled.discard(self)
        if self.transport.is_closing():
            return
        held, self._held = self._held, b""
        self._owed = min(self._owed, BURST)
        self._read(held, read)
        if not self._held and self not in self.limits.throttled and not self._is_paused():
            self.transport.resume_reading()

    def _is_paused(self) -> bool:
        """Whether uvicorn itself wants nothing more for now."""
        raise NotImplementedError


class HttpProtocol(_Metered, H11Protocol):
    """A connection that speaks HTTP until it is upgraded."""

    server_state: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection."""
        super().connection_made(transport)
        self.limits = self.server_state
        self.waiting_since = time.monotonic()
        self.limits.make_room(self)

    def data_received(self, data: bytes) -> None:
        """Read what has arrived."""
        self._read(data, super().data_received)
        if self._is_serving:
            self.waiting_since = None

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.waiting_since = time.monotonic()
        super().on_response_complete()  # which may have the next request already
        if self._is_serving:
            self.waiting_since = None

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_paused(self) -> bool:
        return self.flow.read_paused


class WebSocketProtocol(_Metered, WebSocketsSansIOProtocol):
    """A connection that was upgraded to a WebSocket."""

    _pong = b""  # is sent once the client reads again

    def __init__(self, config: Config, server_state: Connections, app_state: dict[str, Any]) -> None:
        """Take over a connection."""
        super().__init__(config, server_state, app_state)
        self.limits = server_state
        self.waiting_since = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Read what has arrived."""
        self._read(data, super().data_received)

    def handle_ping(self) -> None:
        """Answer a ping; only the last one, while the client doesn't read (RFC 6455, section 5.5.3)."""
        if self.writable.is_set() or self.conn.state is not State.OPEN:
            super().handle_ping()
        else:
            self._pong = next(reversed(self.conn.data_to_send()), self._pong)

    def resume_writing(self) -> None:
        """Send what had to wait."""
        super().resume_writing()
        if self._pong and not self.transport.is_closing():
            self.transport.write(self._pong)
        self._pong = b""

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment to its message."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self._fail(CloseCode.POLICY_VIOLATION, f"a message has more than {MAX_FRAGMENTS} fragments")
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Give the application a message, unless it is a text that isn't one."""
        if self.curr_msg_data_type == "text":
            try:
                text = b"".join(self.frames)
                text.decode()
                self.frames = [text]
            except UnicodeDecodeError:
                self.frames = []
                self._fail(CloseCode.INVALID_DATA, "the text isn't UTF-8")
                return
        self.waiting_since = None
        super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        """Send a message of the application."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # by being refused: uvicorn would call that an error

    def _fail(self, code: CloseCode, reason: str) -> None:
        log.info("closed a WebSocket: %s", reason)
        if self.conn.state is State.OPEN:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def _is_paused(self) -> bool:
        return self.read_paused


class AcceptErrors:
    """The event loop's handler of errors: it logs one line a minute if connections can't be accepted.

    asyncio tries again after a second.
    """

    def __init__(self) -> None:
        """Begin without errors."""
        self._logged = -LOG_INTERVAL

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an error."""
        if "socket.accept()" not in context["message"]:
            loop.default_exception_handler(context)
        elif (now := time.monotonic()) - self._logged > LOG_INTERVAL:
            self._logged = now
            log.error("no connection can be accepted: %s", context.get("exception"))


def _waits_since(connection: object) -> float | None:
    return connection.waiting_since if isinstance(connection, _Metered) else None


def raise_file_limit() -> None:
    """Let this process open as many files as the system allows it to ask for."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def room_for_connections(wanted: int) -> int:
    """Return how many connections fit into the process's limit of files, at most `wanted`."""
    if sys.platform == "win32":
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    room = max(soft - _open_files() - RESERVED_FILES, FEWEST)
    if room < wanted:
        log.warning("only %d connections fit into the limit of %d open files: raise it (ulimit -n)", room, soft)
    return min(wanted, room)


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len([*folder.iterdir()]) if folder.is_dir() else 0
