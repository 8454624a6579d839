"""The mode `latest` over a WebSocket: the newest frame supersedes those that wait."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from keywarp.commands.load_generator import StreamMeasurement, open_loop
from keywarp.engines import Engine
from keywarp.protocol import CloseCode, Codec, Credit, Done, Dropped, End, Hello, Mode, Result
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import B_FRAMES, h264, jpeg, mpegts, pieces
from tests.server.routes.test_streams import create

STREAMS = 12
FPS = 12.0


def test_the_newest_frame_supersedes_those_that_wait(server: Running) -> None:
    """How many frames wait is left to chance here; test_pipeline.py controls it."""
    with server.connect("latest", Hello(mode="latest", interval=10)) as talk:
        assert talk.ready.mode == "latest"
        release = server.hold_device()
        talk.frame(jpeg(), 0)
        stream = server.service.streams["latest"]
        eventually(lambda: stream.idle == 0.0)
        for number in range(1, 6):
            talk.frame(jpeg(), number)
        release()
        answers = [talk.response() for _ in range(6)]
        assert [(a.frame, a.id) for a in answers] == [(number, number) for number in range(6)]
        assert answers[0].type == "result"
        last = answers[-1]
        assert isinstance(last, Result)
        assert (last.kind, last.key_age) == ("propagated", 5)  # dropped frames leave no gap
        dropped = sum(isinstance(a, Dropped) for a in answers)
        info = server.http.get("/v1/streams/latest").json()
        assert (info["mode"], info["frames"], info["dropped"]) == ("latest", 6 - dropped, dropped)
        counted = f'keywarp_frames_dropped_total{{reason="newer"}} {dropped}.0'
        assert (counted in server.http.get("/metrics").text) == (dropped > 0)
        talk.send(End())
        while isinstance(message := talk.receive(), Credit):
            pass
        assert message == Done(frames=6 - dropped, key_frames=1, errors=0, dropped=dropped)


@pytest.mark.parametrize("codec", ["image", "h264", "mpegts"])
def test_each_frame_is_answered_once_and_in_order(server: Running, codec: Codec) -> None:
    payloads: dict[str, list[tuple[int | None, bytes]]] = {
        "image": [(i, jpeg()) for i in range(60)],
        "h264": [*h264(60, B_FRAMES)],
        "mpegts": [(None, piece) for piece in pieces(mpegts(60, B_FRAMES), 1316)],
    }
    with server.connect("hurry", Hello(codec=codec, mode="latest")) as talk:
        answers, done = talk.stream(payloads[codec])
    assert [a.frame for a in answers] == list(range(60))
    assert isinstance(answers[-1], Result)
    assert done.frames + done.dropped == 60
    assert done.dropped == sum(isinstance(a, Dropped) for a in answers)
    assert not server.demuxers()


def test_a_frame_that_cannot_be_decoded_is_reported_and_forces_a_key_frame(server: Running) -> None:
    with server.connect("hurt", Hello(mode="latest", interval=10)) as talk:
        talk.frame(jpeg())
        assert talk.result().kind == "key"
        talk.frame(b"no image")
        assert talk.error().problem.status == 415
        talk.frame(jpeg())
        assert talk.result().reason == "gap"


def test_deleting_a_stream_closes_its_connection(server: Running) -> None:
    for _ in range(5):
        with server.connect("doomed", Hello(mode="latest")) as talk:
            for _ in range(8):
                talk.frame(jpeg())
            talk.result()
            server.http.delete("/v1/streams/doomed")
            assert talk.close_code() == CloseCode.STREAM_GONE
    eventually(lambda: not server.tasks())


@pytest.fixture
def _slow_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a key frame take at least 30 ms and a propagated frame 8 ms, which is too long for `overload`."""

    def slowed(run: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def slowly(*args: Any, **options: Any) -> Any:
            time.sleep(seconds)
            return run(*args, **options)

        return slowly

    monkeypatch.setattr(Engine, "key", slowed(Engine.key, 0.03))
    monkeypatch.setattr(Engine, "propagate", slowed(Engine.propagate, 0.008))


def overload(server: Running, hello: Hello, seconds: float) -> list[StreamMeasurement]:
    """Send frames to 12 streams at 12 frames a second each, as cameras do."""

    def run(number: int) -> StreamMeasurement:
        return open_loop(server.url, f"busy-{number}", hello, [jpeg()], FPS, seconds)

    with ThreadPoolExecutor(STREAMS) as pool:
        return list(pool.map(run, range(STREAMS)))


@pytest.mark.usefixtures("_slow_engine")
def test_an_overloaded_device_keeps_the_share_of_key_frames(start: Starter) -> None:
    measured = overload(start(lanes=1), Hello(mode="latest", interval=5, max_age=3600), seconds=3)
    assert sum(one.failures["dropped"] for one in measured) > 50  # it is overloaded
    for one in measured:
        assert one.frames > 3
        assert one.frames / 5 <= one.results["key"] < one.frames / 5 + 2  # the first interval may be shorter


@pytest.mark.usefixtures("_slow_engine")
def test_an_overloaded_device_propagates_from_no_key_frame_that_is_too_old(start: Starter) -> None:
    for one in overload(start(lanes=1), Hello(mode="latest", interval=1000, max_age=0.5), seconds=3):
        assert one.results["key"] > 2
        assert one.results["propagated"] > 2
        assert max(one.key_ages) <= 0.5


@pytest.mark.parametrize("mode", ["latest", "lossless"])
def test_streams_in_the_mode_latest_have_their_key_frames_in_different_turns(start: Starter, mode: Mode) -> None:
    server = start()
    names = [create(server, mode=mode, interval=4).id for _ in range(4)]
    turns = [sum(server.frame(name).json()["kind"] == "key" for name in names) for _ in range(9)]
    assert turns == ([4, 1, 1, 1, 1, 1, 1, 1, 1] if mode == "latest" else [4, 0, 0, 0, 4, 0, 0, 0, 4])
