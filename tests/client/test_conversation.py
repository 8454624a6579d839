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
    hear(conversation, ready(credit))
    return conversation


def hear(conversation: Conversation, message: BaseModel, now: float = 0) -> ProcessedFrame | FrameError | None:
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
    hear(conversation, ready(1))
    assert conversation.wants_payload


@pytest.mark.parametrize(("credit", "in_flight", "sent"), [(100, 3, 3), (2, 3, 2), (0, 3, 0), (5, 1, 1)])
def test_images_are_bounded_by_credit_and_by_those_in_flight(credit: int, in_flight: int, sent: int) -> None:
    assert send_all(begin(credit, in_flight)) == sent


def test_packets_are_bounded_by_credit_alone() -> None:
    conversation = begin(credit=5, in_flight=1, codec="h264")
    assert send_all(conversation) == 5
    hear(conversation, Credit(credit=7))
    assert conversation.wants_payload


def test_in_a_hurry_images_are_bounded_by_credit_alone_and_those_dropped_are_counted() -> None:
    conversation = begin(credit=3, in_flight=1, mode="latest")
    assert send_all(conversation) == 3
    assert hear(conversation, Dropped(frame=0, id=0, reason="newer", credit=4)) is None
    assert conversation.dropped == 1
    assert conversation.wants_payload
    assert isinstance(hear(conversation, result(1, id=1)), ProcessedFrame)
    with pytest.raises(ProtocolError, match="id 2"):
        hear(conversation, Dropped(frame=3, id=3, reason="newer"))


def test_credit_never_shrinks() -> None:
    conversation = begin(credit=5, codec="h264")
    hear(conversation, Credit(credit=2))
    assert send_all(conversation) == 5


def test_a_result_makes_room_and_tells_its_latency() -> None:
    conversation = begin(in_flight=2)
    send(conversation, 0, now=10.0)
    send(conversation, 1, now=10.5)
    assert not conversation.wants_payload
    first = hear(conversation, result(0, id=0), now=11.0)
    second = hear(conversation, result(1, id=1), now=11.25)
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
        given = hear(conversation, result(frame, id=number), now=5.0)
        assert isinstance(given, ProcessedFrame)
        latencies.append(given.latency)
    assert latencies == [5.0, 3.0, 4.0]


def test_an_error_answers_its_frame_and_is_counted() -> None:
    conversation = begin(in_flight=1)
    send(conversation, 0)
    problem = Problem(title="Bad image", status=422)
    given = hear(conversation, Error(problem=problem, fatal=False, frame=0, id=0))
    assert isinstance(given, FrameError)
    assert str(given) == "frame 0: Bad image"
    assert conversation.errors == 1
    assert conversation.wants_payload


def test_the_conversation_ends_with_done() -> None:
    conversation = begin()
    send(conversation, 0)
    conversation.end()
    assert not conversation.wants_payload
    hear(conversation, result(0, id=0))
    hear(conversation, Done(frames=1, key_frames=1, errors=0))
    assert conversation.state is ConversationState.DONE
    assert conversation.done == Done(frames=1, key_frames=1, errors=0)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (result(0, id=1), "id 0, it is to id 1"),
        (ready(1), "streaming"),
        (Done(frames=0, key_frames=0, errors=0), "end was sent"),
    ],
)
def test_a_message_out_of_turn_is_an_error(message: BaseModel, reason: str) -> None:
    conversation = begin()
    send(conversation, 0)
    with pytest.raises(ProtocolError, match=reason):
        hear(conversation, message)


def test_a_result_too_many_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="id None"):
        hear(begin(), result(0, id=0))


def test_done_with_results_owed_is_an_error() -> None:
    conversation = begin()
    send(conversation, 0)
    conversation.end()
    with pytest.raises(ProtocolError, match="owes 1"):
        hear(conversation, Done(frames=0, key_frames=0, errors=0))


def test_a_result_before_ready_is_an_error() -> None:
    conversation = Conversation(Hello(), 1)
    conversation.hello()
    with pytest.raises(ProtocolError, match="wrong time"):
        hear(conversation, result(0))


def test_at_least_one_frame_is_in_flight() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Conversation(Hello(), 0)
