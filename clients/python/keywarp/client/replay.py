"""The packets of a video that have to be sent again after the connection broke."""

from typing import Final

from keywarp.client.errors import ResumeError
from keywarp.client.payloads import Payload
from keywarp.protocol import ClientId

# A server that stops also answers frames that its decoder held back because others are shown before them. After the
# break those others come as new frames. H.264 and HEVC hold back at most this many.
MAX_EARLY: Final = 16


class ReplayBuffer:
    """Keeps the packets from which decoding can begin again, up to the last one that was sent.

    They begin with the last key packet before which everything is answered. That is a key packet whose own frame was
    answered and after it, on the same connection, the frame of a later packet: frames are answered in display order,
    and frames that are sent after a key frame but shown before it, which need packets from before it, follow it
    directly. So those are answered, too. One answer isn't enough, since a server that stops answers all that it has.

    After a break the packets are sent again, and responses that were given before come a second time.
    """

    def __init__(self, memory: int) -> None:
        """Begin without packets.

        Args:
            memory: The most bytes of packets to keep.
        """
        self._memory = memory
        self._bytes = 0
        self._packets: dict[int, Payload] = {}  # by id, in the order of sending
        self._positions: dict[int, int] = {}  # by id, the positions of the answered frames in the stream
        self._complete = True  # whether decoding can begin with the first packet
        self._key: int | None = None  # the last key packet that was answered on this connection
        self._expected: dict[int, int] = {}  # of `_positions` at the last break, those that weren't answered again yet
        self._last_expected: int | None = None  # the one of them with the last position
        self._early = 0  # new responses before that one

    def add(self, payload: Payload) -> None:
        """Keep a packet that is sent."""
        if payload.id is None or not (self._complete or self._packets or payload.starts):
            return
        self._packets[payload.id] = payload
        self._bytes += len(payload.data)
        if self._bytes > self._memory:
            self._packets.clear()
            self._bytes = 0
            self._complete = False
            self._key = None
            self._positions.clear()

    def mark_answered(self, id: ClientId | None, position: int) -> None:  # noqa: A002
        """Note a new response.

        Args:
            id: The id of the packet that it answers.
            position: The frame's position in the stream.
        """
        packet = self._packets.get(id) if isinstance(id, int) else None
        if packet is None or packet.id is None:
            return
        self._positions[packet.id] = position
        self._advance(packet.id)

    def replay(self) -> tuple[Payload, ...]:
        """Return the packets to send again. From now on `repeated` recognises responses that were given before.

        Raises:
            ResumeError: If there were more packets than the memory holds.
        """
        if not self._complete:
            raise ResumeError(
                f"the stream can't continue after the break: there are more than {self._memory} bytes since the last "
                "key frame, which is the limit (Reconnect.memory)"
            )
        self._expected = dict(self._positions)
        self._last_expected = max(self._positions, key=lambda id_: self._positions[id_], default=None)
        self._early = 0
        self._key = None
        return tuple(self._packets.values())

    @property
    def is_replaying(self) -> bool:
        """Whether responses that were given before have still to come a second time."""
        return self._last_expected is not None

    def repeated(self, id: ClientId | None) -> int | None:  # noqa: A002
        """Return the position in the stream of a frame that is answered for the second time, or None if it is new.

        Raises:
            ResumeError: If new frames come, but not the last one that was answered before the break. Then the decoder
                began too late, and frames are missing.
        """
        if not isinstance(id, int):
            return None
        position = self._expected.pop(id, None)
        if id == self._last_expected:
            self._last_expected = None
        if position is not None and id in self._packets:
            self._advance(id)
        if position is None and self._last_expected is not None:
            self._early += 1
            if self._early > MAX_EARLY:
                raise ResumeError(
                    f"the stream can't continue after the break: packet {self._last_expected} was answered before it, "
                    "but not again"
                )
        return position

    def _advance(self, id_: int) -> None:
        """Forget packets that aren't needed any more, now that this one is answered."""
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
        self._positions = {known: position for known, position in self._positions.items() if known in self._packets}
        self._complete = True
