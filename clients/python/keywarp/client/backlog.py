"""The packets of a video that decoding begins with again after the connection broke."""

from typing import Final

from keywarp.client.errors import ResumeError
from keywarp.client.payloads import Payload
from keywarp.protocol import ClientId

# A server that stops gives what its decoder held back for frames shown before, which then come as new ones: H.264 and
# HEVC hold back so many at most.
MAX_EARLY: Final = 16


class Backlog:
    """What was sent since the last key packet behind which everything can be decoded that isn't answered.

    That is one whose own frame was answered, and then, on the same connection, another that was sent later. Frames are
    answered in the order of display, and those that are sent after a key frame but shown before it, and need what is
    before it, follow it directly: so they have been answered, too. One answer isn't enough, since a server that stops
    gives what it has.

    After a break the packets are sent again, and the answers that were given before come a second time.
    """

    def __init__(self, memory: int) -> None:
        """Keep nothing yet.

        Args:
            memory: Bytes that are kept at most.
        """
        self._memory = memory
        self._bytes = 0
        self._packets: dict[int, Payload] = {}  # by id, in the order of sending
        self._given: dict[int, int] = {}  # where in the stream the frames of these packets were
        self._whole = True  # the first packet is one to begin with
        self._key: int | None = None  # the last key packet that was answered, on this connection
        self._repeats: dict[int, int] = {}  # of `_given` at the last break, what hasn't come again
        self._last: int | None = None  # the last of them
        self._early = 0  # new answers before it came

    def sent(self, payload: Payload) -> None:
        """Keep a packet."""
        if payload.id is None or not (self._whole or self._packets or payload.starts):
            return
        self._packets[payload.id] = payload
        self._bytes += len(payload.data)
        if self._bytes > self._memory:
            self._packets.clear()
            self._bytes = 0
            self._whole = False
            self._key = None
            self._given.clear()

    def answered(self, id: ClientId | None, frame: int) -> None:  # noqa: A002
        """Note an answer that is new, and its position in the stream."""
        packet = self._packets.get(id) if isinstance(id, int) else None
        if packet is None or packet.id is None:
            return
        self._given[packet.id] = frame
        self._pass(packet.id)

    def again(self) -> tuple[Payload, ...]:
        """Give what must be sent again; until all that was given has come again, `repeated` knows it.

        Raises:
            ResumeError: It was more than is kept.
        """
        if not self._whole:
            raise ResumeError(
                f"the stream can't go on after the break: there are more than {self._memory} bytes since the last key "
                "frame, the most that is kept (Reconnect.memory)"
            )
        self._repeats = dict(self._given)
        self._last = max(self._given, key=lambda id_: self._given[id_], default=None)
        self._early = 0
        self._key = None
        return tuple(self._packets.values())

    @property
    def is_replaying(self) -> bool:
        """Whether answers still have to come a second time."""
        return self._last is not None

    def repeated(self, id: ClientId | None) -> int | None:  # noqa: A002
        """Say where in the stream a frame was, if this answers it for the second time.

        Raises:
            ResumeError: Frames come that are new, but the last that was answered before the break doesn't come again:
                the decoder began too late, and frames are missing.
        """
        if not isinstance(id, int):
            return None
        before = self._repeats.pop(id, None)
        if id == self._last:
            self._last = None
        if before is not None and id in self._packets:
            self._pass(id)
        if before is None and self._last is not None:
            self._early += 1
            if self._early > MAX_EARLY:
                raise ResumeError(
                    f"the stream can't go on after the break: packet {self._last} was answered before it, but not again"
                )
        return before

    def _pass(self, id_: int) -> None:
        if self._key is not None and id_ > self._key:
            self._begin_with(self._key)
            self._key = None
        if self._packets[id_].starts:
            self._key = id_

    def _begin_with(self, id_: int) -> None:
        for old in list(self._packets):
            if old == id_:
                break
            self._bytes -= len(self._packets.pop(old).data)
        self._given = {known: frame for known, frame in self._given.items() if known in self._packets}
        self._whole = True
