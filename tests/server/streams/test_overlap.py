"""Key frames that are computed between the frames after them."""

import pytest

from keywarp.engines import SLICES
from keywarp.protocol import CloseCode, Hello, Mode, Result
from tests.server.conftest import Starter
from tests.server.media import jpeg
from tests.server.routes.test_streams import create

COUNT = 15


def results(server: Starter, hello: Hello, **settings: object) -> tuple[list[Result], str]:
    running = server(**settings)
    with running.connect("stream", hello) as talk:
        found = []
        for number in range(COUNT):
            talk.frame(jpeg(), number)
            found.append(talk.result())
    return found, running.http.get("/metrics").text


@pytest.mark.parametrize("chosen", ["by the stream", "by the server"])
def test_so_many_frames_are_still_propagated_from_the_key_frame_before(start: Starter, chosen: str) -> None:
    by_stream = chosen == "by the stream"
    hello = Hello(interval=5, overlap=2 if by_stream else None)
    found, metrics = results(start, hello, overlap=0 if by_stream else 2)
    assert [result.key_age for result in found] == [0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 2, 3, 4]
    assert [result.kind for result in found] == ["key"] + ["propagated"] * (COUNT - 1)
    assert 'keywarp_key_frames_total{model="tiny",reason="start"} 1.0' in metrics
    assert 'keywarp_key_frames_total{model="tiny",reason="overlapped"} 2.0' in metrics


def test_in_the_mode_latest_it_goes_on_from_the_new_one_at_the_latest_then(start: Starter) -> None:
    found, _ = results(start, Hello(interval=5, overlap=4, mode="latest"))
    ages = [result.key_age for result in found]
    assert ages[:6] == [0, 1, 2, 3, 4, 5]
    assert max(ages) <= 5 + 3
    assert min(ages[9:]) >= 1


@pytest.mark.parametrize("mode", ["lossless", "latest"])
def test_streams_show_their_overlap(start: Starter, mode: Mode) -> None:
    server = start(overlap=3)
    assert create(server, mode=mode).overlap == 3
    assert create(server, mode=mode, overlap=0).overlap == 0
    with server.connect("stream", Hello(mode=mode, overlap=7)) as talk:
        assert talk.ready.overlap == 7
    with server.connect(create(server, overlap=5).id) as talk:
        talk.send(Hello(overlap=6))
        assert talk.close_code() == CloseCode.BAD_MESSAGE


def test_an_overlap_is_shorter_than_the_interval(start: Starter) -> None:
    server = start(overlap=3)
    assert create(server, interval=2).overlap == 1
    assert create(server, interval=1).overlap == 0, "each frame is a key frame"
    response = server.http.post("/v1/streams", json={"interval": 3, "overlap": 3})
    assert response.status_code == 400
    assert "`overlap` 3 must be less than the interval, 3" in response.text


def test_key_frames_are_cut_into_slices_where_they_overlap(start: Starter) -> None:
    for overlap in (0, 3):
        server = start(overlap=overlap, lanes=1)
        [replica] = server.service.models.replicas("tiny")
        assert replica.engine.slices == (SLICES if overlap else 1)
