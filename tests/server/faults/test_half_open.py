"""Connections that their client has lost, while the server still sees them as healthy."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from keywarp.client import Client, Reconnect
from keywarp.protocol import CloseCode, Hello
from keywarp.server.security.keys import new_key
from tests.client.proxy import CuttingProxy
from tests.server.conftest import LANES, Running, Starter, eventually
from tests.server.faults.neighbour import undisturbed
from tests.server.faults.test_streams import processed
from tests.server.media import jpeg
from tests.server.security.test_keys import bearer

SOON = Reconnect(seconds=30, first=0.01, longest=0.1)
FRAMES = 30


@pytest.mark.parametrize("stays", [False, True])
def test_a_client_goes_on_though_the_server_sees_its_old_connection_as_healthy(start: Starter, stays: bool) -> None:
    server = start()
    with CuttingProxy(server.url) as proxy, Client(proxy.address) as client:
        if stays:
            client.create_stream("half-open")
        images = [np.full((64, 128, 3), 4 * i, np.uint8) for i in range(FRAMES)]
        results = client.stream(images, stream_id="half-open", in_flight=4, reconnect=SOON)
        frames = []
        for result in results:
            frames.append(result.frame)
            if len(frames) == FRAMES // 2:
                proxy.cut(hold=True)
        assert frames == [*range(FRAMES)]
        assert results.reconnects == 1, "it was refused at first"


@pytest.mark.parametrize("stays", [False, True])
def test_a_resumed_stream_takes_over_from_a_connection_whose_frames_wait(start: Starter, stays: bool) -> None:
    server = start()
    if stays:
        server.http.post("/v1/streams", json={"id": "taken"})
    with undisturbed(server) as neighbour, server.connect("taken", Hello()) as old:
        old.frame(jpeg(), 0)
        run = old.result().run
        with server.connect("taken", Hello(resumed=True)) as new:
            assert old.close_code() == CloseCode.TAKEN_OVER
            new.frame(jpeg(), 1)
            result = new.result()
            assert (result.id, result.kind, result.run == run) == (1, "key", stays)
        neighbour.receives(3)
    eventually(lambda: (server.service.streams.get("taken") is not None) == stays)


def test_what_waits_for_the_device_is_left_to_the_connection_that_takes_over(start: Starter) -> None:
    server = start()
    release = server.hold_device()
    with server.connect("waits", Hello()) as old:
        for number in range(8):
            old.frame(jpeg(), number)
        device = server.service.devices[0].executor
        eventually(lambda: device.depth > LANES + 1)
        with ThreadPoolExecutor(1) as pool:
            closed = pool.submit(old.close_code)
            with server.connect("waits", Hello(resumed=True)) as new:
                assert closed.result() == CloseCode.TAKEN_OVER
                release()
                for number in range(8):
                    new.frame(jpeg(), number)
                assert [new.result().id for _ in range(8)] == [*range(8)]
    assert processed(server) == 8, "frames were processed twice"


def test_a_client_that_does_not_resume_takes_over_nothing(server: Running) -> None:
    with server.connect("busy", Hello()) as first:
        with server.connect("busy") as second:
            second.send(Hello())
            assert second.close_code() == CloseCode.STREAM_BUSY
        first.frame(jpeg())
        first.result()


def test_only_the_same_key_takes_over(start: Starter, tmp_path: Path) -> None:
    (mine, my_line), (others, other_line) = (new_key(name, "stream") for name in ("mine", "others"))
    keys = tmp_path / "keys"
    keys.write_text(f"{my_line}\n{other_line}\n")
    server = start(keys=keys)
    with server.connect("mine", Hello(), additional_headers=bearer(mine)) as old:
        with server.connect("mine", additional_headers=bearer(others)) as thief:
            thief.send(Hello(resumed=True))
            assert thief.close_code() == CloseCode.STREAM_BUSY
        old.frame(jpeg())
        old.result()
        with server.connect("mine", Hello(resumed=True), additional_headers=bearer(mine)) as new:
            assert old.close_code() == CloseCode.TAKEN_OVER
            new.frame(jpeg())
            new.result()
