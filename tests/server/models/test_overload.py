"""Admission control: a real server refuses new streams while its device can't serve more."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import FrameResult, StreamSession
from keywarp.protocol import CloseCode, Done, End, Hello, Result
from keywarp.server.devices import LOW_WATERMARK, Device
from keywarp.server.service import Service
from keywarp.server.settings import Settings
from tests.server.conftest import PATIENCE, Running, Starter, eventually
from tests.server.media import jpeg
from tests.server.routes.test_streams import create, problem


class Feeder(threading.Thread):
    """A client that sends frames to one stream without a pause."""

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
            talk.send(End())
            self.results += [talk.result() for _ in range(3)]
            while not isinstance(message := talk.receive(), Done):
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
    """Make each frame take at least 20 ms, so that a stream waits 60 ms for three others."""
    process = StreamSession.process

    def slowly(session: StreamSession, frame: NDArray[np.uint8], *place: Any, **more: Any) -> FrameResult:
        time.sleep(0.02)
        return process(session, frame, *place, **more)

    monkeypatch.setattr(StreamSession, "process", slowly)


def quick_to_judge(settings: Settings) -> Service:
    """Make a service that averages the pressure over about a second."""
    return Service(
        settings, find_devices=lambda settings: (Device(None, settings.max_wait, pressure_time_constant=1.0),)
    )


PIXELS = {"name": "frame", "shape": [2, 2, 3], "datatype": "UINT8", "data": [0] * 12}


@pytest.mark.usefixtures("_slow_device")
def test_an_overloaded_server_refuses_new_streams_and_open_ones_go_on(start: Starter) -> None:
    server = start(quick_to_judge, max_wait=0.03)
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
                talk.send(Hello())
                error = talk.error()
                assert (error.fatal, error.problem.status, error.problem.retry_after) == (True, 503, 5)
                assert talk.close_code() == CloseCode.TRY_AGAIN_LATER
            # Open streams go on, and a load balancer mustn't take the server out of service.
            assert server.frame("known").status_code == 200
            with server.connect("known", Hello()):
                pass
            assert server.http.get("/readyz").status_code == 200
            text = server.http.get("/metrics").text
            assert 'keywarp_requests_refused_total{reason="overload"} ' in text
            share = next(line for line in text.splitlines() if line.startswith("keywarp_pressure_ratio "))
            assert LOW_WATERMARK < float(share.split()[1]) <= 1
        # New streams are accepted again when there are fewer, while one still keeps the device busy.
        eventually(lambda: server.http.post("/v1/streams", json={}).status_code == 201)
        assert stays.done is None
    for feeder in (stays, *others):
        frames = len(feeder.results)
        assert feeder.done == Done(frames=frames, key_frames=-(-frames // 10), errors=0)
        assert [(r.frame, r.key_age) for r in feeder.results] == [(i, i % 10) for i in range(frames)]


@pytest.mark.usefixtures("_slow_device")
def test_one_client_that_sends_as_fast_as_it_can_is_no_overload(start: Starter) -> None:
    server = start(quick_to_judge, max_wait=0.001)
    with feeding(server, "fast") as [fast]:
        eventually(lambda: len(fast.results) > 100)
        assert server.http.post("/v1/streams", json={}).status_code == 201
    queued = sorted(result.timings.queue for result in fast.results)
    assert queued[len(queued) // 2] > 0.001  # its frames wait for each other all the time


@pytest.mark.usefixtures("_slow_device")
def test_admission_control_can_be_switched_off(start: Starter) -> None:
    server = start(quick_to_judge, max_wait=0)
    with feeding(server, "a", "b", "c") as feeders:
        eventually(lambda: len(feeders[0].results) > 60)
        assert server.http.post("/v1/streams", json={}).status_code == 201
        assert "keywarp_pressure_ratio 0.0" in server.http.get("/metrics").text
