import pytest
from pydantic import ValidationError

from keywarp.protocol import (
    ClientMessage,
    CreateStream,
    Credit,
    Detection,
    Done,
    End,
    Error,
    Hello,
    ModelInfo,
    Problem,
    Ready,
    Result,
    ServerMessage,
    Timings,
)

MODEL = ModelInfo(
    name="m",
    version="1",
    task="segmentation",
    classes=(),
    key_interval=10,
    backend="openvino",
    device="cpu",
    precision="fp32",
)
RESULT = Result(
    stream="s",
    frame=3,
    width=64,
    height=48,
    kind="propagated",
    key_age=3,
    timings=Timings(decode=0.001, queue=0.0, inference=0.01, postprocess=0.002),
)
CAR = Detection(class_id=3, name="car", confidence=0.9641, xyxy=(320.25, 103.0, 425.4, 158.75))


@pytest.mark.parametrize(
    "message",
    [
        Hello(),
        Hello(model="m", interval=5, codec="h264", framing="chunks"),
        Hello(schedule="adaptive", max_interval=9),
        Hello(mode="latest", max_age=2.5),
        Hello(reliability="map"),
        End(),
    ],
)
def test_client_messages_survive_the_wire(message: Hello | End) -> None:
    assert ClientMessage.validate_json(message.model_dump_json(exclude_none=True)) == message


@pytest.mark.parametrize(
    "message",
    [
        Ready(stream="s", model=MODEL, interval=10, credit=8, max_message_bytes=100),
        Credit(credit=9),
        Error(problem=Problem(title="t", status=422), fatal=False, frame=3, id="x"),
        Done(frames=1, key_frames=1, errors=0),
        RESULT,
        RESULT.model_copy(update={"kind": "key", "reason": "cut", "change": 0.7123}),
        RESULT.model_copy(update={"key_age_seconds": 0.25}),
        RESULT.model_copy(update={"detections": (CAR, CAR)}),
        RESULT.model_copy(update={"motion": "dis", "reliability": 0.75, "reliability_png": "iVBO"}),
        RESULT.model_copy(update={"detections": (CAR.model_copy(update={"reliability": 0.5}),)}),
    ],
)
def test_server_messages_survive_the_wire(message: Ready | Credit | Error | Done | Result) -> None:
    assert ServerMessage.validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"type": "other"}',
        '{"type": "hello", "modle": "m"}',
        '{"type": "hello", "interval": 0}',
        '{"type": "hello", "schedule": "daily"}',
        '{"type": "hello", "schedule": "adaptive", "max_interval": 1001}',
        '{"type": "hello", "max_age": 0}',
        '{"type": "hello", "reliability": "all"}',
        '{"type": "hello", "max_age": 86401}',
        '{"type": "hello", "max_age": "NaN"}',
        '{"type": "hello", "codec": "mjpeg"}',
        '{"type": "end", "now": true}',
    ],
)
def test_servers_refuse_messages_and_fields_that_the_protocol_does_not_define(text: str) -> None:
    with pytest.raises(ValidationError):
        ClientMessage.validate_json(text)


def test_clients_ignore_fields_that_the_protocol_does_not_define() -> None:
    assert ServerMessage.validate_json('{"type": "credit", "credit": 3, "news": 1}') == Credit(credit=3)


def test_a_result_without_objects_differs_from_one_of_another_task() -> None:
    nothing = RESULT.model_copy(update={"detections": ()})
    for message, detections in ((nothing, ()), (RESULT, None)):
        read = ServerMessage.validate_json(message.model_dump_json(exclude_none=True))
        assert isinstance(read, Result)
        assert read.detections == detections


@pytest.mark.parametrize("task", ["detections", "segmentation"])
def test_results_of_other_versions_are_understood(task: str) -> None:
    """An older server leaves the fields of newer tasks out, and a newer one may add fields anywhere."""
    message = RESULT.model_copy(update={"detections": (CAR,)}).model_dump(mode="json")
    message["detections"][0]["track"] = message["pose"] = 1
    del message[task]
    read = ServerMessage.validate_python(message)
    assert isinstance(read, Result)
    assert read.detections == (None if task == "detections" else (CAR,))
    assert read.segmentation is None


def test_hello_leaves_out_options_that_were_not_given() -> None:
    assert Hello(interval=5).model_dump(exclude_none=True).keys() == {"type", "interval", "codec", "framing"}


def test_ready_without_a_schedule_means_a_fixed_one_without_a_limit_of_the_age() -> None:
    ready = Ready(stream="s", model=MODEL, interval=10, credit=8, max_message_bytes=100).model_dump()
    del ready["schedule"], ready["max_interval"], ready["max_age"]
    read = Ready.model_validate(ready)
    assert (read.schedule, read.max_age) == ("fixed", None)


def test_options_that_only_a_newer_server_has_are_ignored() -> None:
    ready = Ready(stream="s", model=MODEL, interval=10, credit=8, max_message_bytes=100).model_dump()
    read = Ready.model_validate(ready | {"options": {"interval": 5, "brightness": 2}})
    assert read.options is not None
    assert read.options.model_dump(exclude_none=True) == {"interval": 5}


@pytest.mark.parametrize("name", ["", "-x", "a/b", "../x", "a" * 65, "ü"])
def test_stream_ids_are_letters_digits_and_a_few_signs(name: str) -> None:
    with pytest.raises(ValidationError):
        CreateStream(id=name)
