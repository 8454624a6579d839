"""A server whose device can't serve more streams takes no new ones, until it can."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import FrameResult, StreamSession
from keywarp.protocol import CloseCode, Done, End, Hello, Result
from keywarp.server import pressure
from keywarp.server.pressure import HIGH, LOW, SPAN, Pressure
from tests.server.conftest import PATIENCE, Running, Starter, eventually
from tests.server.media import jpeg
from tests.server.routes.test_streams import create, problem


class Clock:
    """Monotonic seconds, at a test's will."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class FakeDevice:
    """Streams that wait for their turn, and for how long, without the time that it takes."""

    def __init__(self, clock: Clock, limit: float = 1.0) -> None:
        self.clock = clock
        self.depth = 1
        self.pressure = Pressure(limit, lambda: self.depth)

    def run(self, seconds: float, turn: float, frames: int = 100) -> bool:
        """Let frames be done for some seconds, each after a wait; whether it is too much then."""
        for _ in range(frames):
            self.clock.now += seconds / frames
            self.pressure.note(turn)
        return self.pressure.is_high


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    clock = Clock()
    monkeypatch.setattr(pressure, "time", clock)
    return FakeDevice(clock)


def test_a_burst_is_no_overload(device: FakeDevice) -> None:
    assert not device.run(60, 0.1)
    assert not device.run(6.5, 100)
    assert not device.run(5, 0.1)
    assert not device.run(3, 100)


def test_waiting_too_long_for_long_is_overload_until_it_is_clearly_over(device: FakeDevice) -> None:
    assert not device.run(60, 0.9)
    assert device.run(7.5, 1.1)
    assert device.pressure.share > HIGH
    assert device.run(2, 0.9)  # not at once
    assert LOW < device.pressure.share < HIGH
    assert not device.run(6, 0.9)
    assert device.pressure.share < LOW


def test_waits_about_the_limit_do_not_switch_it_to_and_fro(device: FakeDevice) -> None:
    device.run(60, 1.1)
    assert {device.run(0.5, turn) for _ in range(60) for turn in (0.9, 1.1)} == {True}


def test_a_device_without_work_is_under_no_pressure(device: FakeDevice) -> None:
    assert device.run(60, 5)
    device.depth = 0
    assert not device.pressure.is_high
    device.depth = 1
    assert not device.pressure.is_high
    assert not device.run(6.5, 5)
    assert device.run(1, 5)


def test_a_wait_says_nothing_of_the_time_before_it(device: FakeDevice) -> None:
    device.clock.now += 1000
    device.pressure.note(3)
    assert not device.pressure.is_high
    assert device.pressure.share < 3 / SPAN


def test_it_can_be_switched_off(device: FakeDevice) -> None:
    device.pressure = Pressure(0, lambda: 1)
    assert not device.run(1000, 1000)


class Feeder(threading.Thread):
    """One stream whose next frames are always there."""

    def __init__(self, server: Running, name: str) -> None:
        super().__init__(name=name)
        self._server = server
        self._enough = threading.Event()
        self.results: list[Result] = []
        self.done: Done | None = None

    def run(self) -> None:
        with self._server.connect(self.name, Hello(interval=10)) as talk:
            for _ in range(3):
                talk.frame(jpeg())
            while not self._enough.is_set():
                talk.frame(jpeg())
                self.results.append(talk.result())
            talk.say(End())
            self.results += [talk.result() for _ in range(3)]
            while not isinstance(message := talk.hear(), Done):
                pass
            self.done = message

    def stop(self) -> None:
        self._enough.set()
        self.join(PATIENCE)


@contextmanager
def feeding(server: Running, *names: str) -> Iterator[list[Feeder]]:
    feeders = [Feeder(server, name) for name in names]
    for feeder in feeders:
        feeder.start()
    try:
        eventually(lambda: len(server.service.streams) >= len(names))
        yield feeders
    finally:
        for feeder in feeders:
            feeder.stop()


@pytest.fixture
def _slow_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame takes 20 ms at least, so three other streams are a wait of 60."""
    process = StreamSession.process

    def slowly(session: StreamSession, frame: NDArray[np.uint8], *place: int) -> FrameResult:
        time.sleep(0.02)
        return process(session, frame, *place)

    monkeypatch.setattr(StreamSession, "process", slowly)
    monkeypatch.setattr(pressure, "SPAN", 1.0)


PIXELS = {"name": "frame", "shape": [2, 2, 3], "datatype": "UINT8", "data": [0] * 12}


@pytest.mark.usefixtures("_slow_device")
def test_under_overload_new_streams_are_refused_and_others_go_on(start: Starter) -> None:
    server = start(max_wait=0.03)
    create(server, id="known")
    with feeding(server, "stays") as [stays]:
        with feeding(server, "a", "b", "c") as others:
            eventually(lambda: server.http.post("/v1/videos?codec=mp4").status_code == 503)
            for refused in (
                server.http.post("/v1/streams", json={}),
                server.http.post("/v1/videos?codec=mp4"),
                server.http.post("/v2/models/tiny/infer", json={"inputs": [PIXELS]}),
            ):
                found = problem(refused)
                assert (found.status, found.retry_after) == (503, 5)
                assert refused.headers["retry-after"] == "5"
            assert refused.json()["error"] == found.detail
            with server.connect("new") as talk:
                talk.say(Hello())
                error = talk.error()
                assert (error.fatal, error.problem.status, error.problem.retry_after) == (True, 503, 5)
                assert talk.closed() == CloseCode.TRY_AGAIN_LATER
            # What is there isn't new, and a load balancer mustn't take it away.
            assert server.frame("known").status_code == 200
            with server.connect("known", Hello()):
                pass
            assert server.http.get("/readyz").status_code == 200
            text = server.http.get("/metrics").text
            assert 'keywarp_requests_refused_total{reason="overload"} ' in text
            share = next(line for line in text.splitlines() if line.startswith("keywarp_pressure_ratio "))
            assert LOW < float(share.split()[1]) <= 1
        # By itself, as soon as there are fewer streams, while one still keeps the device busy.
        eventually(lambda: server.http.post("/v1/streams", json={}).status_code == 201)
        assert stays.done is None
    for feeder in (stays, *others):
        frames = len(feeder.results)
        assert feeder.done == Done(frames=frames, key_frames=-(-frames // 10), errors=0)
        assert [(r.frame, r.key_age) for r in feeder.results] == [(i, i % 10) for i in range(frames)]


@pytest.mark.usefixtures("_slow_device")
def test_one_stream_as_fast_as_it_can_is_no_overload(start: Starter) -> None:
    server = start(max_wait=0.001)
    with feeding(server, "fast") as [fast]:
        eventually(lambda: len(fast.results) > 100)
        assert server.http.post("/v1/streams", json={}).status_code == 201
    queued = sorted(result.timings.queue for result in fast.results)
    assert queued[len(queued) // 2] > 0.001  # it waits for itself all the time


@pytest.mark.usefixtures("_slow_device")
def test_refusing_under_overload_can_be_switched_off(start: Starter) -> None:
    server = start(max_wait=0)
    with feeding(server, "a", "b", "c") as feeders:
        eventually(lambda: len(feeders[0].results) > 60)
        assert server.http.post("/v1/streams", json={}).status_code == 201
        assert "keywarp_pressure_ratio 0.0" in server.http.get("/metrics").text
