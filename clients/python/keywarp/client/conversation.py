"""The client's half of the WebSocket protocol, which does no input or output itself.

Both clients drive it the same way. They send what `hello`, `pack` and `end` return, call `pack` only while
`wants_payload`, and pass every message that arrives to `receive`. If a connection ends too early, `prepare_reconnect`
returns how long to wait before they connect and start with `hello` again. So flow control, the matching of results with
frames, latency and resending are implemented once, here.
"""

import logging
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import get_args

from pydantic import ValidationError
from websockets.frames import Close

from keywarp.client.errors import ConnectError, FrameError, KeywarpError, ProtocolError, ResumeError, stream_error
from keywarp.client.payloads import Payload
from keywarp.client.reconnecting import OFF, Backoff, Reconnect, is_temporary
from keywarp.client.replay import ReplayBuffer
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
    """The state of a conversation. The values appear in error messages."""

    NEW = "new"
    HELLO_SENT = "hello was sent"
    STREAMING = "streaming"
    END_SENT = "end was sent"
    DONE = "done"


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A payload that was sent and has no response yet."""

    at: float  # when it was first sent; monotonic seconds
    payload: Payload | None  # an image; packets are kept by the replay buffer


class Conversation:
    """One stream from `hello` to `done`, over as many connections as it takes.

    With the codec `image` each message has one response, in order. At most `in_flight` messages wait for their
    responses, or as many as the credit allows in the mode `latest`, where the server may drop frames. A packet of a
    video isn't a frame, since decoders hold some frames back. So there the server's credit is the only limit, and
    results are matched with packets by their ids.

    After a break, images without a response are sent again; in the mode `latest` they are old by then, and count as
    dropped. Packets are sent again from one at which decoding can begin (see `ReplayBuffer`), and repeated responses
    are ignored. Pieces of containers can't be sent again. A server counts frames from 0 on each connection, so
    the positions in its responses are corrected.

    Attributes:
        state: The conversation's state.
        ready: The server's last response to `hello`, or None before the first.
        done: The server's counts for the last connection, or None before the end.
        errors: Frames so far that the server could not process.
        first_error: The error of the first of them, or None.
        dropped: Frames so far that were dropped by the server or at a break.
        results: Frames so far with a result.
        ended_early: Whether the server found the video to end too early, or to be damaged from some place on.
        reconnects: The number of times that the conversation continued over another connection.
    """

    def __init__(self, hello: Hello, in_flight: int, reconnect: Reconnect = OFF) -> None:
        """Begin a conversation without a connection.

        Args:
            hello: The first message.
            in_flight: The most images that wait for their results at a time.
            reconnect: The options for reconnecting when a connection breaks.

        Raises:
            ValueError: If `in_flight` is less than 1.
        """
        if in_flight < 1:
            raise ValueError(f"in_flight is at least 1, not {in_flight}")
        self.state = ConversationState.NEW
        self.ready: Ready | None = None
        self.done: Done | None = None
        self.errors = 0
        self.first_error: FrameError | None = None
        self.dropped = 0
        self.results = 0
        self.ended_early = False
        self.reconnects = 0
        self._hello = hello
        self._in_flight = in_flight
        self._reconnect = reconnect
        self._backoff = Backoff(reconnect)
        self._sends_images = hello.codec == "image"
        self._may_drop = hello.mode == "latest"
        self._credit = 0
        self._sent = 0  # messages, on this connection
        self._unanswered: dict[int, _Sent] = {}  # by id, the oldest first
        self._to_resend: deque[Payload] = deque()  # payloads that were lost with the last connection
        self._replay = ReplayBuffer(reconnect.memory) if hello.codec in get_args(PacketCodec) else None
        self._next_position: int | None = None  # the next frame's position in the stream; None before the first
        self._offset: int | None = 0  # added to this connection's positions; None until a response shows it
        self._problem: Problem | None = None  # of a fatal error

    def hello(self) -> str:
        """Return the first message."""
        self._transition(ConversationState.NEW, ConversationState.HELLO_SENT)
        hello = self._hello
        if self.ready is not None:
            # A restart may change the server's default model, but a stream's results come from one model.
            update: dict[str, object] = {"model": self.ready.model.name}
            if self.ready.options is not None:  # some may have been given to another request, such as sinks
                update = self.ready.options.model_dump(exclude_none=True) | update | {"resumed": True}
            hello = hello.model_copy(update=update)
        return hello.model_dump_json(exclude_none=True)

    @property
    def wants_payload(self) -> bool:
        """Whether the next payload may be sent now."""
        if self.state is not ConversationState.STREAMING or self._sent >= self._credit:
            return False
        if not self._sends_images or self._may_drop:
            return True
        return len(self._unanswered) - len(self._to_resend) < self._in_flight

    @property
    def next_resend(self) -> Payload | None:
        """The next payload that was lost with the last connection. It has to be packed before any new one."""
        return self._to_resend[0] if self._to_resend else None

    def pack(self, payload: Payload, now: float) -> bytes:
        """Return the message that carries a payload.

        Args:
            payload: The payload.
            now: Monotonic seconds.

        Raises:
            MediaError: If the message is larger than the server accepts.
        """
        if not self.wants_payload:
            raise RuntimeError(f"no payload is wanted now (state: {self.state.value})")
        message = pack(
            FrameHeader(
                id=payload.id,
                timestamp=payload.timestamp,
                gap=payload.gap or None,  # older servers don't know these two
                discard=payload.discard or None,
            ),
            payload.data,
        )
        if self.ready and len(message) > self.ready.max_message_bytes:
            limit = self.ready.max_message_bytes
            raise stream_error(
                CloseCode.MESSAGE_TOO_BIG, f"a message has {len(message)} bytes, but the server accepts at most {limit}"
            )
        self._sent += 1
        if payload is self.next_resend:
            self._to_resend.popleft()
        elif payload.id is not None:
            self._unanswered[payload.id] = _Sent(now, payload if self._sends_images else None)
            if self._replay:
                self._replay.add(payload)
        return message

    def end(self) -> str:
        """Return the message that marks the end of the payloads."""
        self._transition(ConversationState.STREAMING, ConversationState.END_SENT)
        return End().model_dump_json()

    def receive(self, message: str | bytes, now: float) -> ProcessedFrame | FrameError | None:
        """Process a message from the server.

        Args:
            message: The message.
            now: When it arrived; monotonic seconds.

        Returns:
            The result or error of one frame, or None if the message concerns the conversation only.

        Raises:
            ProtocolError: If it isn't a message of the protocol, or isn't expected now.
        """
        if isinstance(message, bytes):
            raise ProtocolError("the server sent a binary message, which keywarp.v1 doesn't have")
        try:
            parsed = ServerMessage.validate_json(message)
        except ValidationError as error:
            raise ProtocolError(f"the server sent a message that keywarp.v1 doesn't have: {message[:100]!r}") from error
        match parsed:
            case Ready():
                self._transition(ConversationState.HELLO_SENT, ConversationState.STREAMING)
                if self.ready is not None:
                    self.reconnects += 1
                    log.info("stream %s continues over a new connection", parsed.stream)
                self.ready = parsed
                self._credit = parsed.credit
                return None
            case Error(fatal=True):
                self._problem = parsed.problem  # the close code follows, and determines the kind of error
                return None
        if self.state not in (ConversationState.STREAMING, ConversationState.END_SENT):
            raise ProtocolError(f"the server sent `{parsed.type}` at the wrong time (state: {self.state.value})")
        match parsed:
            case Result() | Error() | Dropped():
                self._raise_credit(parsed.credit)
                return self._take_response(parsed, now)
            case Credit():
                self._raise_credit(parsed.credit)
                if self.ready and parsed.options:
                    self.ready = self.ready.model_copy(update={"options": parsed.options})
            case Done():
                self._finish(parsed)
        return None

    def closing_error(self, close: Close | None) -> KeywarpError:
        """Return the error that a connection ended with before `done`.

        Args:
            close: The close frame of the server, or None if the connection broke.
        """
        if close is not None and close.code != CloseCode.NORMAL:
            self.ended_early = close.code == CloseCode.BAD_MEDIA
            return stream_error(close.code, close.reason, self._problem)
        if self._problem is not None:
            return stream_error(CloseCode.INTERNAL_ERROR, problem=self._problem)
        return ConnectError("the connection to the server broke before the stream was done")

    def prepare_reconnect(self, error: KeywarpError, now: float) -> float | None:
        """Prepare for the next connection, after one failed or ended.

        Args:
            error: The error that `closing_error` returned, or the reason why connecting failed.
            now: Monotonic seconds.

        Returns:
            Seconds to wait before connecting again, or None if nothing is left to do.

        Raises:
            KeywarpError: `error` itself, if connecting again can't help, isn't wanted, or was tried for long enough.
            ResumeError: If payloads that were lost with the connection aren't kept any more.
        """
        was_streaming = self.state in (ConversationState.STREAMING, ConversationState.END_SENT)
        if not is_temporary(error) or not self._is_resumable:
            raise error
        wait = self._backoff.next_wait(error, now)
        if self._sends_images and self.state is ConversationState.END_SENT and not self._unanswered:
            self.state = ConversationState.DONE  # only the server's counts are missing
            return None
        if was_streaming:
            self._restore_lost_payloads(error)
        log.log(
            logging.WARNING if was_streaming else logging.INFO,
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
        return self._sends_images or self._replay is not None

    def _restore_lost_payloads(self, error: KeywarpError) -> None:
        """Decide which payloads of the lost connection are sent again."""
        self._sent = self._credit = 0
        if self._next_position is not None:
            self._offset = None
        if self._replay:
            try:
                knows_discard = self.ready is not None and self.ready.options is not None
                self._to_resend = deque(self._replay.replay(repeat=not knows_discard))
            except ResumeError as reason:
                raise reason from error
        elif not self._may_drop:
            self._to_resend = deque(sent.payload for sent in self._unanswered.values() if sent.payload)
        else:
            count = len(self._unanswered)
            self.dropped += count
            self._unanswered.clear()
            if self._next_position is not None:
                self._next_position += count
            elif self._offset is not None:
                self._offset += count

    def _take_response(self, response: Result | Error | Dropped, now: float) -> ProcessedFrame | FrameError | None:
        repeated = self._replay.repeated(response.id) if self._replay else None
        if repeated is not None:
            if self._offset is None and response.frame is not None:
                self._offset = repeated - response.frame
            return None
        sent = self._pop_unanswered(response.id)
        position = self._stream_position(response.frame)
        if self._replay:
            self._replay.mark_answered(response.id, position)
        self._backoff.reset()
        match response:
            case Result():
                self.results += 1
                latency = now - sent.at if sent else None
                result = response if response.frame == position else response.model_copy(update={"frame": position})
                image = sent.payload.image if sent and sent.payload else None
                classes = self.ready.model.classes if self.ready else ()
                return ProcessedFrame(result, image, latency, now, classes=classes)
            case Error():
                self.errors += 1
                error = FrameError(response.problem, None if response.frame is None else position, response.id)
                self.first_error = self.first_error or error
                return error
            case Dropped():
                self.dropped += 1
                return None

    def _stream_position(self, frame: int | None) -> int:
        """Return the position in the stream of a frame whose position on this connection is `frame`."""
        if frame is None:
            position = self._next_position or 0
        else:
            if self._offset is None:
                self._offset = (self._next_position or 0) - frame
            position = frame + self._offset
        self._next_position = max(self._next_position or 0, position + 1)
        return position

    def _transition(self, old: ConversationState, new: ConversationState) -> None:
        if self.state is not old:
            raise ProtocolError(f"the conversation should be in state {old.value!r}, but is in {self.state.value!r}")
        self.state = new

    def _raise_credit(self, credit: int | None) -> None:
        if credit is not None:
            self._credit = max(self._credit, credit)

    def _pop_unanswered(self, id: ClientId | None) -> _Sent | None:  # noqa: A002
        """Find and forget the payload that a response belongs to."""
        if self._sends_images:
            oldest = next(iter(self._unanswered), None)
            if oldest is None or id != oldest:
                raise ProtocolError(f"the next response should be to the frame with id {oldest}, but it is to id {id}")
        # A packet of a video may produce no frame, so an unknown id isn't an error there.
        return self._unanswered.pop(id, None) if isinstance(id, int) else None

    def _finish(self, done: Done) -> None:
        self._transition(ConversationState.END_SENT, ConversationState.DONE)
        if self._sends_images and self._unanswered:
            raise ProtocolError(f"the server sent `done` too early (frames without a result: {len(self._unanswered)})")
        if self._replay and self._replay.is_replaying:
            raise ResumeError(
                "the stream can't continue after the break: the server didn't repeat responses that it had sent before"
            )
        self.done = done
