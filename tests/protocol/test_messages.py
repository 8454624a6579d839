import pytest
from pydantic import ValidationError

from keywarp.protocol import (
    ClientMessage,
    CreateStream,
    Credit,
    Done,
    End,
    Error,
    Hello,
    ModelInfo,
    Problem,
    Ready,
    ServerMessage,
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


@pytest.mark.parametrize("message", [Hello(), Hello(model="m", interval=5, codec="h264", framing="chunks"), End()])
def test_client_messages_survive_the_wire(message: Hello | End) -> None:
    assert ClientMessage.validate_json(message.model_dump_json(exclude_none=True)) == message


@pytest.mark.parametrize(
    "message",
    [
        Ready(stream="s", model=MODEL, interval=10, credit=8, max_message_bytes=100),
        Credit(credit=9),
        Error(problem=Problem(title="t", status=422), fatal=False, frame=3, id="x"),
        Done(frames=1, key_frames=1, errors=0),
    ],
)
def test_server_messages_survive_the_wire(message: Ready | Credit | Error | Done) -> None:
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
        '{"type": "hello", "codec": "mjpeg"}',
        '{"type": "end", "now": true}',
    ],
)
def test_servers_refuse_what_they_do_not_know(text: str) -> None:
    with pytest.raises(ValidationError):
        ClientMessage.validate_json(text)


def test_clients_ignore_fields_that_they_do_not_know() -> None:
    assert ServerMessage.validate_json('{"type": "credit", "credit": 3, "news": 1}') == Credit(credit=3)


@pytest.mark.parametrize("name", ["", "-x", "a/b", "../x", "a" * 65, "ü"])
def test_stream_names_are_plain(name: str) -> None:
    with pytest.raises(ValidationError):
        CreateStream(id=name)
