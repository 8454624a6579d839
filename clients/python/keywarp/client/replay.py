"""Keep the packets of a video that have to be sent again if the connection breaks."""

from dataclasses import replace
from typing import Final

from keywarp.client.errors import ResumeError
from keywarp.client.payloads import Payload
from keywarp.protocol import ClientId

# A stopping server also responds to the frames that its decoder held back, although frames that are displayed earlier
# haven't been sent yet. After the break, those earlier frames arrive as new ones. H.264 and HEVC reorder at most this
# many.
MAX_EARLY: Final = 16


class ReplayBuffer:
    """Keeps the packets from which decoding can begin again, up to the last one that was sent.

    The first kept packet is the last key packet for which all earlier packets have their responses. This is known once
    the key packet's frame and then, on the same connection, the frame of a later packet have responses. The reason:
    responses come in display order, and frames that are sent after a key frame but displayed before it follow it
    directly, so they have responses by then, too. The response to the key frame alone isn't enough, because a stopping
    server responds to all frames that it has received.

    After a break the packets are sent again. Those that have their responses are only to be decoded. A server that
    doesn't know this responds to them for the second time.
    """

    def __init__(self, memory: int) -> None:
        """Start without packets.

        Args:
            memory: The most bytes of packets to keep.
        """
        self._memory = memory
        self._bytes = 0
        self._packets: dict[int, Payload] = {}  # by id, in the order of sending
        self._positions: dict[int, int] = {}  # positions in the stream of the frames with responses, by id
        self._complete = True  # whether decoding can begin with the first packet
        self._key: int | None = None  # id of the last key packet with a response on this connection
        self._expected: dict[int, int] = {}  # `_positions` at the last break, less responses repeated since
        self._last_expected: int | None = None  # the id in `_expected` with the last position, until it is repeated
        self._early = 0  # number of new responses before that repeated one

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
            id: The id of the packet that the response belongs to.
            position: The frame's position in the stream.
        """
        packet = self._packets.get(id) if isinstance(id, int) else None
        if packet is None or packet.id is None:
            return
        self._positions[packet.id] = position
        self._advance(packet.id)

    def replay(self, *, repeat: bool = False) -> tuple[Payload, ...]:
        """Return the packets to send again.

        Args:
            repeat: Whether the server responds to all of them. From now on `repeated` recognises those responses.

        Raises:
            ResumeError: If there were more packets than the memory holds.
        """
        if not self._complete:
            raise ResumeError(
                f"the stream can't continue after the break: there are more than {self._memory} bytes since the last "
                "key frame, which is the limit (Reconnect.memory)"
            )
        self._early = 0
        self._key = None
        if not repeat:
            self._expected, self._last_expected = {}, None
            return tuple(
                replace(packet, discard=True) if id_ in self._positions else packet
                for id_, packet in self._packets.items()
            )
        self._expected = dict(self._positions)
        self._last_expected = max(self._positions, key=lambda id_: self._positions[id_], default=None)
        return tuple(self._packets.values())

    @property
    def is_replaying(self) -> bool:
        """Whether repeated responses are still expected."""
        return self._last_expected is not None

    def repeated(self, id: ClientId | None) -> int | None:  # noqa: A002
        """Return the position in the stream of a frame whose response is repeated, or None if the response is new.

        Raises:
            ResumeError: If new responses arrive, but the last one from before the break isn't repeated. Then the
                decoder started too late, and frames are missing.
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
                    f"the stream can't continue after the break: packet {self._last_expected} had a response before "
                    "it, but has none after it"
                )
        return position

    def _advance(self, id_: int) -> None:
        """Forget packets that are no longer needed, now that this one has a response."""
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
