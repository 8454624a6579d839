"""The client's half of the WebSocket conversation, without any input or output of its own.

Both clients drive it the same way: they send what `hello`, `pack` and `end` make, `pack` only while `wants_payload`,
and hand whatever comes in to `receive`. When a connection ends too early they ask `broken` how long to wait, connect,
and begin with `hello` again. So credit, matching results to frames, latency, and what is sent again are decided here,
once.
"""

import logging
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import get_args

from pydantic import ValidationError
from websockets.frames import Close

from keywarp.client.backlog import Backlog
from keywarp.client.errors import ConnectError, FrameError, KeywarpError, ProtocolError, ResumeError, stream_error
from keywarp.client.payloads import Payload
from keywarp.client.reconnecting import OFF, Patience, Reconnect, passes
from keywarp.client.results import ProcessedFrame
from keywarp.protocol import (
    ClientId,
    CloseCode,
    Credit,
    Done,
    Dropped,
    End,
    Error,
    FrameHeader,
    Hello,
    PacketCodec,
    Problem,
    Ready,
    Result,
    ServerMessage,
    pack,
)

log = logging.getLogger("keywarp.client")


class ConversationState(Enum):
    """How far a conversation has come."""

    NEW = "new"
    GREETED = "hello was sent"
    STREAMING = "streaming"
    ENDING = "end was sent"
    DONE = "done"


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    at: float  # when it was first sent; monotonic seconds
    payload: Payload | None  # an image; packets are kept by the backlog


class Conversation:
    """One stream, from `hello` to `done`, over as many connections as it takes.

    With the codec `image` each message is answered by one result or error, in order, and at most `in_flight` wait for
    theirs; in the mode `latest`, where frames may be dropped instead, as many as the credit allows. Packets of a video
    are not frames (a decoder holds some back), so there the server's credit is the only bound, and results find their
    packet by its id.

    After a break, images that weren't answered are sent again; in the mode `latest` they are old by then, and count as
    dropped. Packets are sent again from a point where decoding can begin (see `Backlog`), and answers that were given
    before are swallowed. Pieces of containers can't be sent again. Servers count frames anew, so positions in the
    stream are set right.

    Attributes:
        state: How far it has come.
        ready: The server's last answer to `hello`, once it came.
        done: The server's count at the end, of the last connection, once it came.
        errors: Frames so far that the server could not process.
        dropped: Frames so far that were left out, by the server or after a break.
        reconnects: How often it went on over another connection.
    """

    def __init__(self, hello: Hello, in_flight: int, reconnect: Reconnect = OFF) -> None:
        if in_flight < 1:
            raise ValueError(f"in_flight is at least 1, not {in_flight}")
        self.state = ConversationState.NEW
        self.ready: Ready | None = None
        self.done: Done | None = None
        self.errors = 0
        self.dropped = 0
        self.reconnects = 0
        self._hello = hello
        self._in_flight = in_flight
        self._reconnect = reconnect
        self._patience = Patience(reconnect)
        self._one_to_one = hello.codec == "image"
        self._hurried = hello.mode == "latest"
        self._credit = 0
        self._sent = 0
        self._waiting: dict[int, _Sent] = {}  # by id, oldest first
        self._again: deque[Payload] = deque()  # what of it was lost with the last connection
        self._backlog = Backlog(reconnect.memory) if hello.codec in get_args(PacketCodec) else None
        self._next: int | None = None  # the position of the next frame, once one is known
        self._shift: int | None = 0  # from this connection's positions to ours; None: to be found
        self._problem: Problem | None = None

    def hello(self) -> str:
        """Make the first message."""
        self._move(ConversationState.NEW, ConversationState.GREETED)
        hello = self._hello
        if self.ready is not None:
            # What is the default may have changed with a restart, but the results of a stream are of one model.
            hello = hello.model_copy(update={"model": self.ready.model.name})
        return hello.model_dump_json(exclude_none=True)

    @property
    def wants_payload(self) -> bool:
        """Whether the next payload may be sent now."""
        if self.state is not ConversationState.STREAMING or self._sent >= self._credit:
            return False
        return not self._one_to_one or self._hurried or len(self._waiting) - len(self._again) < self._in_flight

    @property
    def again(self) -> Payload | None:
        """What to `pack` before anything new: the next payload that was lost with the last connection."""
        return self._again[0] if self._again else None

    def pack(self, payload: Payload, now: float) -> bytes:
        """Make the message that carries a payload; `now` is in monotonic seconds.

        Raises:
            MediaError: The server doesn't take messages this big.
        """
        if not self.wants_payload:
            raise RuntimeError(f"no payload is wanted now (state: {self.state.value})")
        message = pack(FrameHeader(id=payload.id, timestamp=payload.timestamp), payload.data)
        if self.ready and len(message) > self.ready.max_message_bytes:
            limit = self.ready.max_message_bytes
            raise stream_error(
                CloseCode.MESSAGE_TOO_BIG, f"a message has {len(message)} bytes, the server takes at most {limit}"
            )
        self._sent += 1
        if payload is self.again:
            self._again.popleft()
        elif payload.id is not None:
            self._waiting[payload.id] = _Sent(now, payload if self._one_to_one else None)
            if self._backlog:
                self._backlog.sent(payload)
        return message

    def end(self) -> str:
        """Make the message that says that nothing more comes."""
        self._move(ConversationState.STREAMING, ConversationState.ENDING)
        return End().model_dump_json()

    def receive(self, message: str | bytes, now: float) -> ProcessedFrame | FrameError | None:
        """Take in one message that arrived at `now`, in monotonic seconds.

        Returns:
            The result or error of one frame, or None for what concerns the conversation only.

        Raises:
            ProtocolError: It isn't a message of the protocol, or not at this point.
        """
        if isinstance(message, bytes):
            raise ProtocolError("the server sent a binary message, which keywarp.v1 doesn't have")
        try:
            said = ServerMessage.validate_json(message)
        except ValidationError as error:
            raise ProtocolError(f"the server sent a message that keywarp.v1 doesn't have: {message[:100]!r}") from error
        match said:
            case Ready():
                self._move(ConversationState.GREETED, ConversationState.STREAMING)
                if self.ready is not None:
                    self.reconnects += 1
                    log.info("stream %s goes on over a new connection", said.stream)
                self.ready = said
                self._credit = said.credit
                return None
            case Error(fatal=True):
                self._problem = said.problem  # the close code follows, and with it the kind of error
                return None
        if self.state not in (ConversationState.STREAMING, ConversationState.ENDING):
            raise ProtocolError(f"the server sent `{said.type}` at the wrong time (state: {self.state.value})")
        match said:
            case Result() | Error() | Dropped():
                self._grant(said.credit)
                return self._answer(said, now)
            case Credit():
                self._grant(said.credit)
            case Done():
                self._finish(said)
        return None

    def closed(self, close: Close | None) -> KeywarpError:
        """Say what it means that the connection is closed before `done`; `close` is None if it broke."""
        if close is not None and close.code != CloseCode.NORMAL:
            return stream_error(close.code, close.reason, self._problem)
        if self._problem is not None:
            return stream_error(CloseCode.INTERNAL_ERROR, problem=self._problem)
        return ConnectError("the connection to the server broke before the stream was done")

    def broken(self, error: KeywarpError, now: float) -> float | None:
        """Take in that a connection failed or ended by `error`, and prepare for the next.

        Args:
            error: What `closed` gave, or why no connection was made.
            now: Monotonic seconds.

        Returns:
            Seconds to wait before connecting again, or None: nothing was left to be done.

        Raises:
            KeywarpError: `error` itself, where connecting again is no use, isn't wanted, or was tried for long enough.
            ResumeError: What was lost with the connection isn't kept any more.
        """
        lost = self.state in (ConversationState.STREAMING, ConversationState.ENDING)
        if not passes(error) or not self._is_resumable:
            raise error
        wait = self._patience.wait(error, now)
        if self._one_to_one and self.state is ConversationState.ENDING and not self._waiting:
            self.state = ConversationState.DONE  # only the server's count is missing
            return None
        if lost:
            self._take_back(error)
        log.log(
            logging.WARNING if lost else logging.INFO,
            "stream %s: %s; connecting again in %.1f s",
            self.ready.stream if self.ready else "(not begun)",
            error,
            wait,
        )
        self.state = ConversationState.NEW
        self._problem = None
        return wait

    @property
    def _is_resumable(self) -> bool:
        if self.ready is None:
            return self._reconnect.at_start
        return self._one_to_one or self._backlog is not None

    def _take_back(self, error: KeywarpError) -> None:
        """Decide what of the lost connection's payloads is sent again."""
        self._sent = self._credit = 0
        if self._next is not None:
            self._shift = None
        if self._backlog:
            try:
                self._again = deque(self._backlog.again())
            except ResumeError as reason:
                raise reason from error
        elif not self._hurried:
            self._again = deque(sent.payload for sent in self._waiting.values() if sent.payload)
        else:
            count = len(self._waiting)
            self.dropped += count
            self._waiting.clear()
            if self._next is not None:
                self._next += count
            elif self._shift is not None:
                self._shift += count

    def _answer(self, said: Result | Error | Dropped, now: float) -> ProcessedFrame | FrameError | None:
        before = self._backlog.repeated(said.id) if self._backlog else None
        if before is not None:
            if self._shift is None and said.frame is not None:
                self._shift = before - said.frame
            return None
        sent = self._match(said.id)
        frame = self._place(said.frame)
        if self._backlog:
            self._backlog.answered(said.id, frame)
        self._patience.renew()
        match said:
            case Result():
                latency = now - sent.at if sent else None
                result = said if said.frame == frame else said.model_copy(update={"frame": frame})
                return ProcessedFrame(result, sent.payload.image if sent and sent.payload else None, latency, now)
            case Error():
                self.errors += 1
                return FrameError(said.problem, None if said.frame is None else frame, said.id)
            case Dropped():
                self.dropped += 1
                return None

    def _place(self, frame: int | None) -> int:
        """Say where in the stream an answer's frame is; `frame` is where it is on this connection."""
        if frame is None:
            place = self._next or 0
        else:
            if self._shift is None:
                self._shift = (self._next or 0) - frame
            place = frame + self._shift
        self._next = max(self._next or 0, place + 1)
        return place

    def _move(self, old: ConversationState, new: ConversationState) -> None:
        if self.state is not old:
            raise ProtocolError(f"the conversation should be at {old.value!r}, it is at {self.state.value!r}")
        self.state = new

    def _grant(self, credit: int | None) -> None:
        if credit is not None:
            self._credit = max(self._credit, credit)

    def _match(self, id: ClientId | None) -> _Sent | None:  # noqa: A002
        """Find what a result answers, and forget it."""
        if self._one_to_one:
            oldest = next(iter(self._waiting), None)
            if oldest is None or id != oldest:
                raise ProtocolError(f"the next answer should be to the frame with id {oldest}, it is to id {id}")
        # A packet of a video may have no frame of its own, so there an id that isn't known is no fault.
        return self._waiting.pop(id, None) if isinstance(id, int) else None

    def _finish(self, done: Done) -> None:
        self._move(ConversationState.ENDING, ConversationState.DONE)
        if self._one_to_one and self._waiting:
            raise ProtocolError(f"the server is done, but owes {len(self._waiting)} results")
        if self._backlog and self._backlog.is_replaying:
            raise ResumeError(
                "the stream can't go on after the break: frames that were answered before didn't come again"
            )
        self.done = done
