"""The mode `latest` over a WebSocket: the newest frame supersedes those that wait."""

import pytest

from keywarp.protocol import CloseCode, Codec, Credit, Done, Dropped, End, Hello, Result
from tests.server.conftest import Running, eventually
from tests.server.media import B_FRAMES, h264, jpeg, mpegts, pieces


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
