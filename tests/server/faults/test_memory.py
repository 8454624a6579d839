"""Payloads that wait to be decoded."""

from contextlib import ExitStack
from itertools import count

import pytest

from keywarp.protocol import Hello
from tests.server.conftest import Running, Starter, eventually
from tests.server.faults.neighbour import undisturbed
from tests.server.media import saved
from tests.server.routes.test_streams import problem

SIZE = 60_000  # bytes of an image, about
LIMIT = 4 * SIZE


@pytest.fixture(scope="module")
def image() -> bytes:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (140, 140, 3), np.uint8)
    return saved(Image.fromarray(noise), "PNG")


def test_all_connections_together_hold_no_more_than_the_limit(start: Starter, image: bytes) -> None:
    server, attackers, number = start(max_queued_bytes=LIMIT), 6, count()
    with undisturbed(server) as neighbour, ExitStack() as talks:
        open_ = [talks.enter_context(server.connect(f"a-{next(number)}", Hello())) for _ in range(attackers)]
        release = server.hold_device()
        for talk in open_:
            for _ in range(8):
                talk.frame(image)
        eventually(lambda: used(server) >= attackers * len(image))
        assert used(server) <= LIMIT + attackers * len(image) + 10_000
        release()
        for talk in open_:
            assert [talk.result().frame for _ in range(8)] == [*range(8)]
        neighbour.receives(3)
    eventually(lambda: used(server) == 0)


def used(server: Running) -> int:
    return server.service.payload_memory.used


def test_bodies_beyond_the_limit_are_refused(start: Starter, image: bytes) -> None:
    server = start(max_queued_bytes=LIMIT)
    server.http.post("/v1/streams", json={"id": "one"})
    with undisturbed(server) as neighbour:
        server.service.payload_memory.used += LIMIT - SIZE // 2  # as others' bodies do
        assert problem(server.frame("one", image)).status == 503
        described = {"id": "two", "sinks": ["x" * SIZE]}
        assert problem(server.http.post("/v1/streams", json=described)).status == 503
        refused = 'keywarp_requests_refused_total{reason="overload"}'
        assert f"{refused} 2.0" in server.http.get("/metrics").text, "both are counted"
        neighbour.receives(3)
        server.service.payload_memory.used -= LIMIT - SIZE // 2
    assert server.frame("one", image).is_success
    assert used(server) == 0


def test_a_connection_that_ends_frees_what_it_holds(start: Starter, image: bytes) -> None:
    server = start(max_queued_bytes=LIMIT)
    release = server.hold_device()
    with server.connect("gone", Hello()) as talk:
        for _ in range(8):
            talk.frame(image)
        eventually(lambda: used(server) > 0)
    release()
    eventually(lambda: used(server) == 0)
