"""The choice of packets to send again after a break, tested on a model of a server whose connections end anywhere."""

from collections import deque
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from keywarp.client import (
    ConnectError,
    FrameError,
    KeywarpError,
    ProcessedFrame,
    Reconnect,
    ResumeError,
    UnavailableError,
)
from keywarp.client.conversation import Conversation, ConversationState
from keywarp.client.payloads import Payload
from keywarp.client.replay import ReplayBuffer
from keywarp.protocol import (
    AgreedOptions,
    ClientMessage,
    Codec,
    Credit,
    Done,
    Error,
    Hello,
    Mode,
    Problem,
    Ready,
    unpack,
)
from tests.client.media import MODEL, result

BROKE = ConnectError("it broke")


@dataclass(frozen=True)
class Packet:
    """A packet as a decoder sees it."""

    id: int
    shown: int  # position in display order
    starts: bool  # whether decoding can begin with it
    hidden: bool = False  # whether it yields no frame


def payload(packet: Packet) -> Payload:
    return Payload(bytes([packet.id]) * 10, packet.id, packet.shown / 10, starts=packet.starts)


class Decoder:
    """A decoder that holds `reorder` frames back for display order, and begins at a key packet."""

    def __init__(self, packets: list[Packet], reorder: int) -> None:
        self._packets = {p.id: p for p in packets}
        self._reorder = reorder
        self._held: list[Packet] = []
        self._key: Packet | None = None

    def decode(self, id_: int) -> list[int]:
        packet = self._packets[id_]
        if packet.starts or id_ == 0:
            self._key = self._key or packet
        if self._key is None or packet.hidden or packet.shown < self._key.shown:  # needs frames before the key frame
            return []
        self._held.append(packet)
        return self._take(self._reorder)

    def flush(self) -> list[int]:
        return self._take(0)

    def _take(self, keep: int) -> list[int]:
        self._held.sort(key=lambda p: p.shown)
        taken = self._held[: max(0, len(self._held) - keep)]
        self._held = self._held[len(taken) :]
        return [p.id for p in taken]


class Server:
    """The server's end of one connection. Its messages wait in `out`."""

    def __init__(self, credit: int, decoder: Decoder | None, base: int, *, knows_discard: bool) -> None:
        self.out: deque[BaseModel] = deque()
        self.frames = 0
        self._base = base
        self._knows_discard = knows_discard
        self._discarded: set[int] = set()
        self._credit = credit
        self._received = 0
        self._decoder = decoder

    def take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._received += 1
            assert self._received <= self._credit
            header = unpack(message)[0]
            id_ = header.id
            assert isinstance(id_, int)
            if header.discard:
                assert self._knows_discard
                self._discarded.add(id_)
            self._credit += 1
            self._answer(self._decoder.decode(id_) if self._decoder else [id_])
            self.out.append(Credit(credit=self._credit))
            return
        if isinstance(ClientMessage.validate_json(message), Hello):
            options = AgreedOptions(interval=10) if self._knows_discard else None
            self.out.append(
                Ready(
                    stream="s",
                    model=MODEL,
                    interval=10,
                    credit=self._credit,
                    max_message_bytes=10**6,
                    options=options,
                )
            )
        else:
            self.stop()
            self.out.append(Done(frames=self.frames, key_frames=0, errors=0))

    def stop(self) -> None:
        """Answer the frames that the decoder holds back."""
        self._answer(self._decoder.flush() if self._decoder else [])

    def _answer(self, ids: list[int]) -> None:
        for id_ in ids:
            if id_ in self._discarded:
                continue
            frame = self._base + self.frames
            self.frames += 1
            if id_ % 7 == 3:
                self.out.append(Error(problem=Problem(title="bad", status=422), fatal=False, frame=frame, id=id_))
            else:
                self.out.append(result(frame, id=id_))


@dataclass(frozen=True)
class Cut:
    """The point at which a connection ends."""

    after: int  # messages of the server that still arrive
    drained: bool  # whether the server first answers the frames that it holds back


class Viewer:
    """The client's end of all connections, with the responses that a user sees."""

    def __init__(self, codec: Codec, in_flight: int, mode: Mode, memory: int) -> None:
        self.conversation = Conversation(
            Hello(codec=codec, mode=mode), in_flight, Reconnect(at_start=True, memory=memory)
        )
        self.ids: list[int] = []  # of the frames that were answered, in order
        self.frames: list[int] = []  # their positions

    def receive(self, message: BaseModel) -> None:
        match self.conversation.receive(message.model_dump_json(), 0.0):
            case ProcessedFrame() as given:
                self._note(given.result.id, given.frame)
            case FrameError() as error:
                self._note(error.id, error.frame)

    def _note(self, id_: object, frame: int | None) -> None:
        assert isinstance(id_, int)
        assert frame is not None
        self.ids.append(id_)
        self.frames.append(frame)


def run(
    packets: list[Packet],
    cuts: list[Cut],
    codec: Codec = "image",
    *,
    mode: Mode = "lossless",
    credit: int = 4,
    in_flight: int = 3,
    reorder: int = 0,
    memory: int = 10**6,
    base: int = 0,
    knows_discard: bool = False,
) -> Viewer:
    """Send all packets over connections that end at the cuts."""
    viewer = Viewer(codec, in_flight, mode, memory)
    conversation = viewer.conversation
    source = iter(map(payload, packets))
    for cut in (*cuts, Cut(after=10**6, drained=False)):
        decoder = None if codec == "image" else Decoder(packets, reorder)
        server = Server(credit, decoder, base, knows_discard=knows_discard)
        base += server.frames if base else 0
        server.take(conversation.hello())
        for count in range(cut.after + 1):
            while conversation.wants_payload:
                sent = conversation.next_resend or next(source, None)
                server.take(conversation.pack(sent, 0.0) if sent else conversation.end())
            if count == cut.after or not server.out:
                break
            viewer.receive(server.out.popleft())
        if conversation.state is ConversationState.DONE:
            break
        error: KeywarpError = BROKE
        if cut.drained and conversation.state is not ConversationState.HELLO_SENT:
            error = UnavailableError(1012)
            server.stop()
            for message in server.out:
                if not isinstance(message, Done):
                    viewer.receive(message)
        if conversation.prepare_reconnect(error, 0.0) is None:
            break
    assert conversation.state is ConversationState.DONE
    return viewer


CUTS = st.lists(st.builds(Cut, after=st.integers(0, 30), drained=st.booleans()), max_size=6)


@st.composite
def videos(draw: st.DrawFn) -> list[Packet]:
    """Draw groups of pictures with B-frames, hidden frames, and frames that are shown before their key frame."""
    packets: list[Packet] = []
    shown = 0
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 6))
        leading = draw(st.integers(0, 2)) if packets else 0  # shown before the key frame, sent after it
        order = [shown + leading, *range(shown, shown + leading)]
        rest = list(range(shown + leading + 1, shown + leading + size))
        for start in range(0, len(rest), 3):  # P before its B-frames
            part = rest[start : start + 3]
            order += [part[-1], *part[:-1]]
        for place, at in enumerate(order):
            hidden = place > leading and draw(st.integers(0, 9)) == 0
            packets.append(Packet(len(packets), at, place == 0, hidden))
        shown += leading + size
    return packets


def images(count: int) -> list[Packet]:
    return [Packet(number, number, starts=True) for number in range(count)]


@given(st.integers(0, 20), CUTS, st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_each_image_is_answered_once_in_order_wherever_connections_end(
    count: int, cuts: list[Cut], credit: int, in_flight: int, base: int
) -> None:
    viewer = run(images(count), cuts, credit=credit, in_flight=in_flight, base=base)
    assert viewer.ids == list(range(count))
    assert viewer.frames == list(range(base, base + count))


@given(videos(), CUTS, st.integers(1, 6), st.booleans())
def test_each_frame_of_a_video_is_answered_once_wherever_connections_end(
    packets: list[Packet], cuts: list[Cut], credit: int, knows_discard: bool
) -> None:
    whole = run(packets, [], "h264", credit=credit, reorder=3)
    viewer = run(packets, cuts, "h264", credit=credit, reorder=3, knows_discard=knows_discard)
    assert sorted(viewer.ids) == sorted(whole.ids)
    if not any(cut.drained for cut in cuts):
        assert viewer.ids == whole.ids
        assert viewer.frames == whole.frames == list(range(len(whole.ids)))


def group(count: int, first: int = 0) -> list[Packet]:
    """A key packet and others after it, whose display order is the order of sending."""
    return [Packet(first + place, first + place, starts=place == 0) for place in range(count)]


def test_positions_continue_if_the_server_begins_to_count_elsewhere() -> None:
    viewer = run(group(4) + group(4, first=4), [Cut(5, drained=False), Cut(9, drained=False)], "vp9", base=50)
    assert viewer.frames == list(range(50, 58))
    assert viewer.conversation.reconnects == 2


def test_packets_with_a_response_are_only_decoded_again() -> None:
    buffer = ReplayBuffer(memory=1000)
    for packet in group(4):
        buffer.add(payload(packet))
    for number in range(3):
        buffer.mark_answered(number, number)
    assert [packet.discard for packet in buffer.replay()] == [True, True, True, False]
    assert [packet.discard for packet in buffer.replay(repeat=True)] == [False] * 4


def test_packets_before_the_last_key_frame_are_not_sent_again() -> None:
    buffer = ReplayBuffer(memory=1000)
    for packet in group(4) + group(4, first=4):
        buffer.add(payload(packet))
    for number in range(6):
        buffer.mark_answered(number, number)
    assert [packet.id for packet in buffer.replay()] == [4, 5, 6, 7]


def test_a_stream_with_more_than_the_memory_since_a_key_frame_cannot_continue() -> None:
    # Each packet has 10 bytes.
    assert run(group(9), [Cut(9, drained=False)], "h264", memory=90).ids == list(range(9))
    with pytest.raises(ResumeError, match=r"more than 40 bytes.*Reconnect\.memory"):
        run(group(9), [Cut(9, drained=False)], "h264", memory=40)


def test_a_stream_can_continue_again_after_the_next_key_frame() -> None:
    packets = group(9) + group(4, first=9)
    assert run(packets, [Cut(25, drained=False)], "h264", memory=40).ids == list(range(13))


def test_a_decoder_that_begins_too_late_is_an_error() -> None:
    conversation = Conversation(Hello(codec="h264"), 1, Reconnect())
    ready = Ready(stream="s", model=MODEL, interval=10, credit=99, max_message_bytes=1000).model_dump_json()
    conversation.hello()
    conversation.receive(ready, 0)
    for packet in group(40):
        conversation.pack(payload(packet), 0)
    for number in range(3):
        conversation.receive(result(number, id=number).model_dump_json(), 0)
    conversation.prepare_reconnect(BROKE, 0)
    conversation.hello()
    conversation.receive(ready, 0)
    while (again := conversation.next_resend) is not None:
        conversation.pack(again, 0)
    assert conversation.receive(result(0, id=1).model_dump_json(), 0) is None
    for number in range(3, 19):
        conversation.receive(result(number - 2, id=number).model_dump_json(), 0)
    with pytest.raises(ResumeError, match="packet 2 had a response before it, but has none after it"):
        conversation.receive(result(17, id=19).model_dump_json(), 0)


def test_images_under_way_are_not_sent_again_in_the_mode_latest() -> None:
    viewer = run(images(10), [Cut(3, drained=False)], mode="latest", credit=3)
    conversation = viewer.conversation
    assert conversation.dropped > 0
    assert len(viewer.ids) + conversation.dropped == 10
    assert viewer.frames == viewer.ids  # positions count dropped frames, too


def test_the_stream_of_a_container_cannot_continue() -> None:
    conversation = Conversation(Hello(codec="mp4"), 1, Reconnect())
    conversation.hello()
    conversation.receive(
        Ready(stream="s", model=MODEL, interval=10, credit=10, max_message_bytes=1000).model_dump_json(), 0
    )
    with pytest.raises(UnavailableError):
        conversation.prepare_reconnect(UnavailableError(1012), 0)


def test_the_first_connection_is_tried_again_only_with_at_start() -> None:
    with pytest.raises(ConnectError, match="it broke"):
        Conversation(Hello(), 1, Reconnect()).prepare_reconnect(BROKE, 0)
    assert Conversation(Hello(), 1, Reconnect(at_start=True)).prepare_reconnect(BROKE, 0)


def test_a_new_connection_keeps_the_model() -> None:
    conversation = Conversation(Hello(interval=7), 1, Reconnect())
    conversation.hello()
    conversation.receive(
        Ready(stream="s", model=MODEL, interval=7, credit=10, max_message_bytes=1000).model_dump_json(), 0
    )
    conversation.prepare_reconnect(BROKE, 0)
    assert ClientMessage.validate_json(conversation.hello()) == Hello(interval=7, model=MODEL.name)


def test_a_new_connection_has_the_options_with_which_the_stream_was_created() -> None:
    conversation = Conversation(Hello(), 1, Reconnect())
    conversation.hello()
    corner = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    created = AgreedOptions(interval=7, sinks=("archive",), masks="rle", hidden=(corner,))
    ready = Ready(stream="s", model=MODEL, interval=7, credit=10, max_message_bytes=1000, options=created)
    conversation.receive(ready.model_dump_json(), 0)
    conversation.prepare_reconnect(BROKE, 0)
    assert ClientMessage.validate_json(conversation.hello()) == Hello(
        model=MODEL.name, interval=7, sinks=("archive",), masks="rle", hidden=(corner,), resumed=True
    )


def test_a_break_after_the_last_response_ends_the_stream() -> None:
    viewer = run(images(2), [Cut(5, drained=False)])
    assert viewer.conversation.reconnects == 0
    assert viewer.ids == [0, 1]
