"""The packets of a video that decoding begins with again after the connection broke."""

from keywarp.client.errors import ResumeError
from keywarp.client.payloads import Payload
from keywarp.protocol import ClientId


class Backlog:
    """What was sent since the last key packet behind which everything can be decoded that isn't answered.

    That is one whose own frame was answered, and after it another that was sent later. Frames are answered in the order
    of display, and those that are sent after a key frame but shown before it, and need what is before it, follow it
    directly: so they have been answered, too. One answer isn't enough, since a server that stops gives what it has.

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
        self._key: int | None = None  # the last key packet that was answered
        self._replayed_to: Payload | None = None  # the last packet that was answered before the break

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
            if not self.is_replaying:
                self._given.clear()

    def answered(self, id: ClientId | None, frame: int) -> None:  # noqa: A002
        """Note an answer that is new, and its position in the stream."""
        packet = self._packets.get(id) if isinstance(id, int) else None
        if packet is None or packet.id is None:
            return
        if self._key is not None and packet.id > self._key:
            self._begin_with(self._key)
            self._key = None
        if packet.starts:
            self._key = packet.id
        self._given[packet.id] = frame

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
        last = max(self._given, key=lambda id_: self._given[id_], default=None)
        self._replayed_to = None if last is None else self._packets[last]
        return tuple(self._packets.values())

    @property
    def is_replaying(self) -> bool:
        """Whether answers still come a second time."""
        return self._replayed_to is not None

    def repeated(self, id: ClientId | None) -> int | None:  # noqa: A002
        """Say where in the stream a frame was, if this answers it for the second time.

        Raises:
            ResumeError: It is a frame after those that were answered before the break, of which some didn't come again.
                Then the decoder wasn't at the same point, and frames may be missing.
        """
        last = self._replayed_to
        if last is None or last.id is None or not isinstance(id, int):
            return None
        before = self._given.get(id)
        if before is None:
            # A server that stops gives frames before their turn, which were held back for others shown before them:
            # then those are new, and come now.
            packet = self._packets.get(id)
            shown = (packet and packet.timestamp, last.timestamp)
            if shown[0] is None or shown[1] is None or shown[0] > shown[1]:
                raise _lost(id, last.id)
            return None
        if before >= self._given[last.id]:
            self._replayed_to = None
        return before

    def _begin_with(self, id_: int) -> None:
        for old in list(self._packets):
            if old == id_:
                break
            self._bytes -= len(self._packets.pop(old).data)
        self._given = {known: frame for known, frame in self._given.items() if known in self._packets}
        self._whole = True


def _lost(id_: int, last: int) -> ResumeError:
    return ResumeError(
        f"the stream can't go on after the break: decoding begins too late (packet {id_} came before {last})"
    )
