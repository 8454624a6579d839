"""The client's half of the WebSocket conversation, without any input or output of its own.

Both clients drive it the same way: they send what `hello`, `pack` and `end` make, `pack` only while `wants_payload`,
and hand whatever comes in to `receive`. So credit, matching results to frames and latency are decided here, once.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from websockets.frames import Close

from keywarp.client.errors import ConnectError, FrameError, KeywarpError, ProtocolError, stream_error
from keywarp.client.payloads import Payload
from keywarp.client.results import FrameResult
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
    Problem,
    Ready,
    Result,
    ServerMessage,
    pack,
)


class State(Enum):
    """How far a conversation has come."""

    NEW = "new"
    GREETED = "hello was sent"
    STREAMING = "streaming"
    ENDING = "end was sent"
    DONE = "done"


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    at: float  # monotonic seconds
    image: NDArray[np.uint8] | None


class Conversation:
    """One stream, from `hello` to `done`.

    With the codec `image` each message is answered by one result or error, in order, and at most `in_flight` wait for
    theirs; in the mode `latest`, where frames may be dropped instead, as many as the credit allows. Packets of a video
    are not frames (a decoder holds some back), so there the server's credit is the only bound, and results find their
    packet by its id.

    Attributes:
        state: How far it has come.
        ready: The server's answer to `hello`, once it came.
        done: The server's count at the end, once it came.
        errors: Frames so far that the server could not process.
        dropped: Frames so far that the server left out.
    """

    def __init__(self, hello: Hello, in_flight: int) -> None:
        if in_flight < 1:
            raise ValueError(f"in_flight is at least 1, not {in_flight}")
        self.state = State.NEW
        self.ready: Ready | None = None
        self.done: Done | None = None
        self.errors = 0
        self.dropped = 0
        self._hello = hello
        self._in_flight = in_flight
        self._one_to_one = hello.codec == "image"
        self._hurried = hello.mode == "latest"
        self._credit = 0
        self._sent = 0
        self._waiting: dict[int, _Sent] = {}  # by id, oldest first
        self._problem: Problem | None = None

    def hello(self) -> str:
        """Make the first message."""
        self._move(State.NEW, State.GREETED)
        return self._hello.model_dump_json(exclude_none=True)

    @property
    def wants_payload(self) -> bool:
        """Whether the next payload may be sent now."""
        if self.state is not State.STREAMING or self._sent >= self._credit:
            return False
        return not self._one_to_one or self._hurried or len(self._waiting) < self._in_flight

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
        if payload.id is not None:
            self._waiting[payload.id] = _Sent(now, payload.image)
        return message

    def end(self) -> str:
        """Make the message that says that nothing more comes."""
        self._move(State.STREAMING, State.ENDING)
        return End().model_dump_json()

    def receive(self, message: str | bytes, now: float) -> FrameResult | FrameError | None:
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
                self._move(State.GREETED, State.STREAMING)
                self.ready = said
                self._credit = said.credit
                return None
            case Error(fatal=True):
                self._problem = said.problem  # the close code follows, and with it the kind of error
                return None
        if self.state not in (State.STREAMING, State.ENDING):
            raise ProtocolError(f"the server sent `{said.type}` at the wrong time (state: {self.state.value})")
        match said:
            case Result():
                self._grant(said.credit)
                sent = self._match(said.id)
                latency = now - sent.at if sent else None
                return FrameResult(said, sent.image if sent else None, latency, now)
            case Error():
                self._grant(said.credit)
                self._match(said.id)
                self.errors += 1
                return FrameError(said.problem, said.frame, said.id)
            case Dropped():
                self._grant(said.credit)
                self._match(said.id)
                self.dropped += 1
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

    def _move(self, old: State, new: State) -> None:
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
        self._move(State.ENDING, State.DONE)
        if self._one_to_one and self._waiting:
            raise ProtocolError(f"the server is done, but owes {len(self._waiting)} results")
        self.done = done
