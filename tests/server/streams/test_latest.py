"""The mode `latest`: the newest frame takes the place of those that wait."""

import time

import pytest

from keywarp.protocol import CloseCode, Codec, Done, Dropped, End, Hello, Result
from tests.server.conftest import Running, eventually
from tests.server.media import B_FRAMES, h264, jpeg, mpegts, pieces


def test_the_newest_frame_takes_the_place_of_those_that_wait(server: Running) -> None:
    with server.connect("latest", Hello(mode="latest", interval=10)) as talk:
        assert talk.ready.mode == "latest"
        release = server.hold_device()
        talk.frame(jpeg(), 0)
        stream = server.service.streams["latest"]
        eventually(lambda: stream.idle == 0.0)
        for number in range(1, 6):
            talk.frame(jpeg(), number)
        time.sleep(0.5)  # they are decoded meanwhile
        release()
        answers = [talk.answer() for _ in range(6)]
        assert [(a.type, a.frame, a.id) for a in answers] == [
            ("result", 0, 0),
            *[("dropped", number, number) for number in range(1, 5)],
            ("result", 5, 5),
        ]
        last = answers[-1]
        assert isinstance(last, Result)
        assert (last.kind, last.key_age) == ("propagated", 5)  # no gap: nothing is lost that the key frame needs
        assert last.timings.queue > 0.3
        info = server.http.get("/v1/streams/latest").json()
        assert (info["mode"], info["frames"], info["dropped"]) == ("latest", 2, 4)
        assert 'keywarp_frames_dropped_total{reason="newer"} 4.0' in server.http.get("/metrics").text
        talk.say(End())
        assert talk.hear() == Done(frames=2, key_frames=1, errors=0, dropped=4)


@pytest.mark.parametrize("codec", ["image", "h264", "mpegts"])
def test_in_a_hurry_each_frame_is_answered_once_and_in_order(server: Running, codec: Codec) -> None:
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


def test_a_stream_that_may_has_longer_intervals_where_the_device_is_too_slow(server: Running) -> None:
    def key_frames(hello: Hello) -> int:
        with server.connect("elastic", hello) as talk:
            for _ in range(4):
                release = server.hold_device()
                for _ in range(8):
                    talk.frame(jpeg())
                time.sleep(0.2)  # they are decoded meanwhile, and most left out
                release()
                for _ in range(8):
                    talk.answer()
                while talk.credit < talk.sent + 8:
                    talk.hear()
            info = server.http.get("/v1/streams/elastic").json()
            assert info["dropped"] > 16
            assert info.get("max_interval") == hello.max_interval
            return int(info["key_frames"])

    rigid = key_frames(Hello(mode="latest", interval=4))
    assert key_frames(Hello(mode="latest", interval=4, max_interval=40)) < rigid


def test_damage_in_a_hurry_is_told_and_makes_a_key_frame(server: Running) -> None:
    with server.connect("hurt", Hello(mode="latest", interval=10)) as talk:
        talk.frame(jpeg())
        assert talk.result().kind == "key"
        talk.frame(b"no image")
        assert talk.error().problem.status == 415
        talk.frame(jpeg())
        assert talk.result().reason == "gap"


def test_deleting_a_stream_in_a_hurry_closes_its_connection(server: Running) -> None:
    for _ in range(5):
        with server.connect("doomed", Hello(mode="latest")) as talk:
            for _ in range(8):
                talk.frame(jpeg())
            talk.result()
            server.http.delete("/v1/streams/doomed")
            assert talk.closed() == CloseCode.STREAM_GONE
    eventually(lambda: not server.tasks())
