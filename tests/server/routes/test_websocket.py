"""The messages of the WebSocket protocol, on a real server."""

import json
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from keywarp.protocol import CloseCode, Container, Credit, Done, Dropped, End, Error, Hello, PacketCodec, Result
from keywarp.videos import MAX_FAILED_UNITS
from tests.server.conftest import Running, Starter, StreamConnection
from tests.server.media import (
    B_FRAMES,
    ENCODERS,
    FRAGMENTED,
    GREEN,
    NO_DELAY,
    RED,
    encode,
    h264,
    jpeg,
    moving,
    mpegts,
    packets,
    pieces,
    plain,
    saved,
    textured,
)


def names(result: Result | Error | Dropped) -> list[str]:
    assert isinstance(result, Result), result
    assert result.segmentation
    return [region.name for region in result.segmentation.regions]


def test_each_frame_gives_one_result_in_order_with_the_clients_id(server: Running) -> None:
    with server.connect("order", Hello(interval=4)) as talk:
        assert talk.ready.stream == "order"
        assert (talk.ready.model.name, talk.ready.interval) == ("tiny", 4)
        answers, done = talk.stream([(100 + i, jpeg(RED if i % 2 else GREEN)) for i in range(20)])
    results = [a for a in answers if isinstance(a, Result)]
    assert [(r.frame, r.id) for r in results] == [(i, 100 + i) for i in range(20)]
    assert [r.key_age for r in results] == [0, 1, 2, 3] * 5
    assert names(results[0]) == ["green"]
    assert done == Done(frames=20, key_frames=5, errors=0)


def test_ids_and_timestamps_come_back_unchanged(server: Running) -> None:
    with server.connect("echo", Hello()) as talk:
        for id_, timestamp in ((7, 1.25), ("seven", None), (None, -3.0), (2**53, 1e300)):
            talk.frame(jpeg(), id_, timestamp)
            result = talk.result()
            assert (result.id, result.timestamp) == (id_, timestamp)


def test_credit_grows_by_one_for_each_message(server: Running) -> None:
    with server.connect("credit", Hello()) as talk:
        window = talk.credit
        assert window == 8
        for i in range(3 * window):
            talk.frame(jpeg(), i)
            talk.result()
        while talk.credit < talk.sent + window:
            assert isinstance(talk.receive(), Credit)
        assert talk.credit == talk.sent + window


def test_a_client_that_exceeds_its_credit_is_disconnected(start: Starter) -> None:
    server = start(credit=1)
    image = jpeg(width=3840, height=2160)  # takes far longer to decode than to send again
    with server.connect("greedy", Hello()) as talk:
        with suppress(ConnectionClosed):
            for _ in range(50):
                talk.frame(image)
        assert talk.close_code() == CloseCode.CREDIT_EXCEEDED


@pytest.mark.parametrize("chunks", [False, True])
def test_h264_with_b_frames_gives_results_in_presentation_order(server: Running, chunks: bool) -> None:
    units = h264(30, B_FRAMES)
    payloads: list[tuple[int | None, bytes]] = list(units)
    if chunks:
        payloads = [(None, piece) for piece in pieces(b"".join(unit for _, unit in units), 100)]
    with server.connect("h264", Hello(codec="h264", framing="chunks" if chunks else "packets")) as talk:
        answers, done = talk.stream(payloads)
    assert done == Done(frames=30, key_frames=3, errors=0)
    assert [a.frame for a in answers] == list(range(30))
    if not chunks:
        assert [a.id for a in answers] == list(range(30))  # although sent in coding order


def test_mpegts_gives_results_with_its_timestamps(server: Running) -> None:
    with server.connect("ts", Hello(codec="mpegts")) as talk:
        answers, done = talk.stream([(None, piece) for piece in pieces(mpegts(30, B_FRAMES), 1316)])
    assert done == Done(frames=30, key_frames=3, errors=0)
    times = [a.timestamp for a in answers if isinstance(a, Result) and a.timestamp is not None]
    assert [round((t - times[0]) * 25) for t in times] == list(range(30))
    assert server.demuxers() == []


@pytest.mark.parametrize("codec", ["hevc", "vp8", "vp9", "av1"])
def test_packets_of_other_codecs_give_a_result_for_each_frame(server: Running, codec: PacketCodec) -> None:
    units: list[tuple[int | None, bytes]] = [*packets(codec, 30)]
    with server.connect(codec, Hello(codec=codec)) as talk:
        answers, done = talk.stream(units)
    assert done == Done(frames=30, key_frames=3, errors=0)
    assert [a.id for a in answers] == list(range(30))


@pytest.mark.parametrize(("container", "encoder", "muxing"), [("mp4", "h264", FRAGMENTED), ("webm", "vp8", {})])
def test_containers_give_a_result_for_each_frame(
    server: Running, container: Container, encoder: PacketCodec, muxing: dict[str, str]
) -> None:
    name, _, options = ENCODERS[encoder]
    data, _ = encode(moving(30), container, options, name, muxing)
    with server.connect(container, Hello(codec=container)) as talk:
        _, done = talk.stream([(None, piece) for piece in pieces(data, 1316)])
    assert done == Done(frames=30, key_frames=3, errors=0)
    assert server.demuxers() == []


def test_a_new_frame_size_forces_a_key_frame(server: Running) -> None:
    with server.connect("size", Hello()) as talk:
        answers, _ = talk.stream([(None, jpeg()), (None, jpeg()), (None, jpeg(width=256)), (None, jpeg(width=256))])
    assert [(a.kind, a.width) for a in answers if isinstance(a, Result)] == [
        ("key", 128),
        ("propagated", 128),
        ("key", 256),
        ("propagated", 256),
    ]


def test_an_adaptive_stream_has_key_frames_where_scenes_change(server: Running) -> None:
    hello = Hello(schedule="adaptive", interval=10, max_interval=12, max_age=3600)
    with server.connect("adaptive", hello) as talk:
        ready = talk.ready
        assert (ready.schedule, ready.interval, ready.max_interval, ready.max_age) == ("adaptive", 10, 12, 3600)
        answers, done = talk.stream([(i, textured(0 if i < 5 else 1)) for i in range(18)])
    results = [a for a in answers if isinstance(a, Result)]
    assert {r.frame: r.reason for r in results if r.reason} == {0: "start", 5: "cut", 17: "interval"}
    assert [r.kind == "key" for r in results] == [r.reason is not None for r in results]
    assert [r.change for r in results[:3]] == [None, 0.0, 0.0]
    assert done.key_frames == 3


def test_a_client_that_knows_no_schedules_gets_the_fixed_one(server: Running) -> None:
    with server.connect("old") as talk:
        talk.socket.send('{"type": "hello", "interval": 3}')
        ready = json.loads(talk.socket.recv())
        assert (ready["schedule"], ready["interval"]) == ("fixed", 3)
        assert not {"max_interval", "max_age"} & ready.keys()
        talk.credit = ready["credit"]
        answers, _ = talk.stream([(i, textured(i)) for i in range(6)])
    assert [a.reason for a in answers if isinstance(a, Result)] == ["start", None, None, "interval", None, None]
    assert {a.change for a in answers if isinstance(a, Result)} == {None}


def test_a_streams_id_is_free_as_soon_as_the_client_receives_done(server: Running) -> None:
    for _ in range(10):
        with server.connect("again", Hello()) as talk:
            talk.send(End())
            assert isinstance(talk.receive(), Done)
            assert server.service.streams.get("again") is None


def test_end_without_frames_is_answered_with_done(server: Running) -> None:
    with server.connect("empty", Hello()) as talk:
        talk.send(End())
        assert talk.receive() == Done(frames=0, key_frames=0, errors=0)
        assert talk.close_code() == CloseCode.NORMAL


HUGE = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (20000).to_bytes(4, "big") * 2 + bytes(100)


@pytest.mark.parametrize(
    ("payload", "status"),
    [(jpeg()[:300], 422), (b"a text file", 415), (b"", 415), (HUGE, 413)],
    ids=["half an image", "text", "nothing", "20000x20000"],
)
def test_a_bad_image_is_answered_in_its_place_and_the_stream_continues(
    server: Running, payload: bytes, status: int
) -> None:
    with server.connect("other", Hello()) as other, server.connect("bad", Hello()) as talk:
        other.frame(jpeg())
        answers, done = talk.stream([(0, jpeg()), (1, jpeg()), (2, payload), (3, jpeg())])
        undisturbed(other)
    assert [a.id for a in answers] == [0, 1, 2, 3]
    error = answers[2]
    assert isinstance(error, Error)
    assert (error.fatal, error.frame, error.problem.status) == (False, 2, status)
    assert isinstance(answers[3], Result)
    assert (answers[3].frame, answers[3].kind) == (3, "key")  # content was lost
    assert done == Done(frames=3, key_frames=2, errors=1)


def send_text(text: str) -> object:
    return lambda talk: talk.socket.send(text)


def send_bytes(data: bytes) -> object:
    return lambda talk: talk.socket.send(data)


def send_frames(*payloads: bytes) -> object:
    def send(talk: StreamConnection) -> None:
        for payload in payloads:
            talk.frame(payload)
        with suppress(ConnectionClosed):  # the server may have refused the frame already
            talk.send(End())

    return send


TEXT = b"a text file\n" * 100


@pytest.mark.parametrize(
    ("hello", "act", "code", "detail"),
    [
        (None, send_text("hello"), 4400, "expected `hello`"),
        (None, send_text('{"type": "end"}'), 4400, "expected `hello`, got `end`"),
        (None, send_text('{"type": "hello", "codec": "gif"}'), 4400, "codec"),
        (None, send_text('{"type": "hello", "colour": "red"}'), 4400, "colour"),
        (None, send_bytes(b"\x02\0\0\0{}" + jpeg()), 4400, "expected `hello`, got a frame"),
        (None, send_text('{"type": "hello", "model": "nope"}'), 4404, "there is no model 'nope'; there are: tiny"),
        (None, send_text('{"type": "hello", "schedule": "daily"}'), 4400, "schedule"),
        (
            None,
            send_text('{"type": "hello", "max_interval": 9}'),
            4400,
            "`max_interval` needs the schedule `adaptive`",
        ),
        (Hello(), send_text('{"type": "hello"}'), 4400, "expected a frame or `end`, got `hello`"),
        (Hello(), send_text("[" * 100_000), 4400, "expected a frame or `end`"),
        (Hello(), send_bytes(b""), 4400, "at least 4 bytes"),
        (Hello(), send_bytes(b"\xff\xff\xff\xff"), 4400, "header"),
        (Hello(), send_bytes(b"\x02\0\0\0[]"), 4400, "header"),
        (Hello(codec="h264"), send_frames(TEXT), 4422, "not an H.264 access unit"),
        (Hello(codec="h264"), send_frames(b""), 4422, "without content"),
        (Hello(codec="h264", framing="chunks"), send_frames(TEXT), 4422, "no key frame"),
        (Hello(codec="mpegts"), send_frames(TEXT), 4422, "not an MPEG transport stream"),
        (Hello(codec="mpegts"), send_frames(mpegts(5, NO_DELAY)[:500]), 4422, ""),
    ],
)
def test_an_invalid_message_ends_its_connection_with_a_reason_and_no_other(
    server: Running, hello: Hello | None, act: object, code: int, detail: str
) -> None:
    assert callable(act)
    with server.connect("other", Hello()) as other:
        other.frame(jpeg())
        with server.connect("bad", hello) as talk:
            act(talk)
            error = talk.error()
            assert error.fatal
            assert error.problem.status == code - 4000
            assert detail in error.problem.detail
            assert talk.close_code() == code
            assert len(talk.socket.close_reason or "") <= 123
            assert detail[:100] in (talk.socket.close_reason or "")
        undisturbed(other)
    assert server.demuxers() == []


def test_frames_after_end_are_refused(server: Running) -> None:
    with server.connect("late", Hello()) as talk:
        talk.frame(jpeg(width=1920, height=1080))
        talk.send(End())
        talk.frame(jpeg())
        assert talk.close_code() == CloseCode.BAD_MESSAGE


def test_results_of_frames_before_bad_video_are_sent(server: Running) -> None:
    units = [unit for _, unit in h264(3, NO_DELAY)]
    with server.connect("breaks", Hello(codec="h264")) as talk:
        for unit in units:
            talk.frame(unit)
        assert [talk.result().frame for _ in units] == [0, 1, 2]
        for frame in range(3, 3 + MAX_FAILED_UNITS):
            talk.frame(b"not a packet")
            damage = talk.error()
            assert (damage.fatal, damage.frame) == (False, frame)
        talk.frame(b"not a packet")
        assert talk.error().fatal
        assert talk.close_code() == CloseCode.BAD_MEDIA


def undisturbed(other: StreamConnection) -> None:
    """Check a stream of three frames, of which the first was sent before: it must be as if it were alone."""
    answers, done = other.stream([(None, jpeg()), (None, jpeg())])
    assert [(a.frame, a.kind) for a in answers if isinstance(a, Result)] == [
        (0, "key"),
        (1, "propagated"),
        (2, "propagated"),
    ]
    assert done == Done(frames=3, key_frames=1, errors=0)


def test_masks_have_the_form_that_the_client_asks_for(server: Running) -> None:
    with server.connect("rle", Hello(masks="rle", resolution="frame")) as talk:
        talk.frame(jpeg(GREEN))
        segmentation = talk.result().segmentation
        assert segmentation
        assert (segmentation.width, segmentation.height, segmentation.labels_png) == (128, 64, None)
        [region] = segmentation.regions
        assert region.rle
        assert region.rle.counts == (0, 128 * 64)


def test_png_and_webp_images_are_processed(server: Running) -> None:
    from PIL import Image

    image = Image.fromarray(plain(GREEN))
    with server.connect("forms", Hello()) as talk:
        answers, _ = talk.stream([(None, saved(image, "PNG")), (None, saved(image, "WEBP", lossless=True))])
    assert [names(answer) for answer in answers] == [["green"], ["green"]]
