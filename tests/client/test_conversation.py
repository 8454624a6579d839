import pytest
from pydantic import BaseModel

from keywarp.client import FrameError, ProcessedFrame, ProtocolError
from keywarp.client.conversation import Conversation, ConversationState
from keywarp.client.payloads import Payload
from keywarp.protocol import Codec, Credit, Done, Dropped, Error, Hello, Mode, Problem, Ready
from tests.client.media import MODEL, result


def ready(credit: int) -> Ready:
    return Ready(stream="s", model=MODEL, interval=10, credit=credit, max_message_bytes=1000)


def begin(credit: int = 100, in_flight: int = 2, codec: Codec = "image", mode: Mode = "lossless") -> Conversation:
    conversation = Conversation(Hello(codec=codec, mode=mode), in_flight)
    conversation.hello()
    receive(conversation, ready(credit))
    return conversation


def receive(conversation: Conversation, message: BaseModel, now: float = 0) -> ProcessedFrame | FrameError | None:
    return conversation.receive(message.model_dump_json(), now)


def send(conversation: Conversation, number: int | None, now: float = 0) -> None:
    conversation.pack(Payload(b"x", number), now)


def send_all(conversation: Conversation) -> int:
    count = 0
    while conversation.wants_payload:
        send(conversation, count)
        count += 1
    return count


def test_nothing_is_sent_before_the_server_is_ready() -> None:
    conversation = Conversation(Hello(), 2)
    assert not conversation.wants_payload
    conversation.hello()
    assert not conversation.wants_payload
    receive(conversation, ready(1))
    assert conversation.wants_payload


@pytest.mark.parametrize(("credit", "in_flight", "sent"), [(100, 3, 3), (2, 3, 2), (0, 3, 0), (5, 1, 1)])
def test_images_are_limited_by_credit_and_in_flight(credit: int, in_flight: int, sent: int) -> None:
    assert send_all(begin(credit, in_flight)) == sent


def test_packets_are_limited_by_credit_alone() -> None:
    conversation = begin(credit=5, in_flight=1, codec="h264")
    assert send_all(conversation) == 5
    receive(conversation, Credit(credit=7))
    assert conversation.wants_payload


def test_in_the_mode_latest_images_are_limited_by_credit_alone_and_dropped_ones_are_counted() -> None:
    conversation = begin(credit=3, in_flight=1, mode="latest")
    assert send_all(conversation) == 3
    assert receive(conversation, Dropped(frame=0, id=0, reason="newer", credit=4)) is None
    assert conversation.dropped == 1
    assert conversation.wants_payload
    assert isinstance(receive(conversation, result(1, id=1)), ProcessedFrame)
    with pytest.raises(ProtocolError, match="id 2"):
        receive(conversation, Dropped(frame=3, id=3, reason="newer"))


def test_credit_never_shrinks() -> None:
    conversation = begin(credit=5, codec="h264")
    receive(conversation, Credit(credit=2))
    assert send_all(conversation) == 5


def test_a_result_makes_room_and_has_its_latency() -> None:
    conversation = begin(in_flight=2)
    send(conversation, 0, now=10.0)
    send(conversation, 1, now=10.5)
    assert not conversation.wants_payload
    first = receive(conversation, result(0, id=0), now=11.0)
    second = receive(conversation, result(1, id=1), now=11.25)
    assert isinstance(first, ProcessedFrame)
    assert isinstance(second, ProcessedFrame)
    assert (first.latency, second.latency) == (1.0, 0.75)
    assert first.received == 11.0
    assert conversation.wants_payload


def test_packets_find_their_results_in_any_order() -> None:
    conversation = begin(codec="h264")
    for number in range(3):
        send(conversation, number, now=float(number))
    latencies = []
    for frame, number in enumerate((0, 2, 1)):
        given = receive(conversation, result(frame, id=number), now=5.0)
        assert isinstance(given, ProcessedFrame)
        latencies.append(given.latency)
    assert latencies == [5.0, 3.0, 4.0]


def test_an_error_belongs_to_its_frame_and_is_counted() -> None:
    conversation = begin(in_flight=1)
    send(conversation, 0)
    problem = Problem(title="Bad image", status=422)
    given = receive(conversation, Error(problem=problem, fatal=False, frame=0, id=0))
    assert isinstance(given, FrameError)
    assert str(given) == "frame 0: Bad image"
    assert conversation.errors == 1
    assert conversation.wants_payload


def test_the_conversation_ends_with_done() -> None:
    conversation = begin()
    send(conversation, 0)
    conversation.end()
    assert not conversation.wants_payload
    receive(conversation, result(0, id=0))
    receive(conversation, Done(frames=1, key_frames=1, errors=0))
    assert conversation.state is ConversationState.DONE
    assert conversation.done == Done(frames=1, key_frames=1, errors=0)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (result(0, id=1), "id 0, but it is to id 1"),
        (ready(1), "streaming"),
        (Done(frames=0, key_frames=0, errors=0), "end was sent"),
    ],
)
def test_a_message_that_is_not_expected_now_is_an_error(message: BaseModel, reason: str) -> None:
    conversation = begin()
    send(conversation, 0)
    with pytest.raises(ProtocolError, match=reason):
        receive(conversation, message)


def test_a_result_without_a_frame_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="id None"):
        receive(begin(), result(0, id=0))


def test_done_before_all_results_is_an_error() -> None:
    conversation = begin()
    send(conversation, 0)
    conversation.end()
    with pytest.raises(ProtocolError, match=r"`done` too early \(frames without a result: 1\)"):
        receive(conversation, Done(frames=0, key_frames=0, errors=0))


def test_a_result_before_ready_is_an_error() -> None:
    conversation = Conversation(Hello(), 1)
    conversation.hello()
    with pytest.raises(ProtocolError, match="wrong time"):
        receive(conversation, result(0))


def test_in_flight_is_at_least_1() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Conversation(Hello(), 0)
