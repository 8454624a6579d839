"""A stream's `max_fps`."""

import pytest

from keywarp.protocol import Dropped, Hello, Result
from keywarp.server.streams.frame_rate import FrameRate
from tests.server.conftest import Running
from tests.server.media import NO_DELAY, mpegts, pieces


@pytest.mark.parametrize(("fps", "most", "share"), [(25, 5, 0.2), (30, 20, 2 / 3), (10, 10, 1), (10, 15, 1)])
def test_as_many_frames_are_taken_as_the_rate_allows(fps: float, most: float, share: float) -> None:
    rate = FrameRate(most)
    taken = [rate.takes(n / fps) for n in range(300)]
    assert taken[0]
    assert sum(taken) == pytest.approx(300 * share, abs=2)


def test_frames_that_are_a_little_early_are_taken() -> None:
    rate = FrameRate(10)
    assert all(rate.takes(n / 10 + (0.004 if n % 2 else -0.004)) for n in range(100))


def test_a_pause_is_not_made_up_for() -> None:
    rate = FrameRate(10)
    assert rate.takes(0)
    assert [rate.takes(60 + n / 100) for n in range(11)] == [True, *[False] * 8, True, False]


def test_a_source_that_begins_again_is_taken_at_once() -> None:
    rate = FrameRate(1)
    assert rate.takes(1000)
    assert rate.takes(0.5)
    assert not rate.takes(0.6)


def test_frames_beyond_the_rate_are_dropped_with_that_reason(server: Running) -> None:
    with server.connect("slow", Hello(codec="mpegts", max_fps=5, interval=3)) as talk:
        assert server.http.get("/v1/streams/slow").json()["max_fps"] == 5
        answers, done = talk.stream([(None, piece) for piece in pieces(mpegts(60, NO_DELAY), 1316)])
    assert [answer.frame for answer in answers] == list(range(60))
    results = [answer for answer in answers if isinstance(answer, Result)]
    dropped = [answer for answer in answers if isinstance(answer, Dropped)]
    assert [result.frame for result in results] == list(range(0, 60, 5))  # of 25 frames a second
    assert [result.kind for result in results] == ["propagated" if n % 3 else "key" for n in range(12)]
    assert {drop.reason for drop in dropped} == {"max_fps"}
    assert (done.frames, done.dropped) == (12, 48)
    assert 'keywarp_frames_dropped_total{reason="max_fps"} 48.0' in server.http.get("/metrics").text
