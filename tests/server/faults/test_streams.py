"""Streams whose server dies, or that seem to be idle."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from keywarp.client import Client, ProcessedFrame, Reconnect
from keywarp.protocol import Hello
from keywarp.protocol.events import Rule, Rules
from tests.client.proxy import CuttingProxy
from tests.server.conftest import Running, Starter, eventually
from tests.server.faults.neighbour import undisturbed
from tests.server.media import NO_DELAY, encode, jpeg, moving, pieces

SOON = Reconnect(seconds=30, first=0.01, longest=0.1)
FRAMES = 30


def test_a_stream_that_was_created_with_sinks_keeps_them_after_its_server_died(start: Starter, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text(f'[sinks.archive]\nfile = "{tmp_path}/{{stream}}.ndjson"')
    first = start(site=site)
    with CuttingProxy(first.url) as proxy, Client(proxy.address) as client:
        client.create_stream("door", sinks=["archive"], interval=3)
        images = [np.full((64, 128, 3), 4 * i, np.uint8) for i in range(FRAMES)]
        kinds = []
        for result in client.stream(images, stream_id="door", in_flight=4, reconnect=SOON):
            kinds.append(result.kind)
            if result.frame == FRAMES // 3:  # as if another server had taken over, which doesn't know the stream
                stream = first.service.streams["door"]
                proxy.cut()
                eventually(lambda stream=stream: not stream.info.connected)  # type: ignore[misc]
                first.run(first.service.streams.remove(stream, "its server died"))
    assert len(kinds) == FRAMES
    first.stop()
    kept = [json.loads(line) for line in (tmp_path / "door.ndjson").read_text().splitlines()]
    results = [line for line in kept if line["type"] == "result"]
    assert {line["id"] for line in results} == set(range(FRAMES))
    assert sum(line["kind"] == "key" for line in results) >= FRAMES // 3, "the interval is lost"
    names = {(line["run"], line["frame"]) for line in results}
    assert len(names) == len(results), "two results have the same name"
    assert len({line["run"] for line in results}) == 2


def test_rules_and_options_that_were_set_meanwhile_are_kept_after_the_server_died(start: Starter) -> None:
    server = start()
    corners = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    first = Rules(title="Door", zones={"mat": corners}, rules={"red": Rule(classes=("red",), zone="mat")})
    later = Rules(title="Back door", zones={"mat": corners}, rules={"any": Rule(zone="mat")})
    found = []
    with CuttingProxy(server.url) as proxy, Client(proxy.address) as client:
        client.create_stream("door", interval=3)
        client.set_rules("door", first)
        images = [np.full((64, 128, 3), (255, 0, 0), np.uint8)] * FRAMES
        for result in client.stream(images, stream_id="door", in_flight=4, reconnect=SOON):
            if result.frame in (
                FRAMES // 3,
                2 * FRAMES // 3,
            ):  # another server takes over, which doesn't know the stream
                stream = server.service.streams["door"]
                proxy.cut()
                eventually(lambda stream=stream: not stream.info.connected)  # type: ignore[misc]
                server.run(server.service.streams.remove(stream, "its server died"))
            if result.frame in (FRAMES // 2, FRAMES - 6):
                now = server.service.streams["door"]
                found.append((now.rules, now.schedule.interval, now is stream))
            if result.frame == FRAMES // 2:
                client.set_rules("door", later)
                client.change_stream("door", interval=2)
        events = client.events("door")
    assert found == [(first, 3, False), (later, 2, False)]
    assert {event.rule for event in events} == {"red", "any"}, "the new streams are watched"


def test_a_resumed_video_is_decoded_but_not_processed_again(server: Running, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(encode(moving(FRAMES), "mp4", NO_DELAY)[0])
    before = processed(server)
    with CuttingProxy(server.url) as proxy, Client(proxy.address) as client:
        results: list[ProcessedFrame] = []
        for result in client.stream(video, stream_id="resumed", codec="h264", reconnect=SOON):
            results.append(result)
            if len(results) == FRAMES // 2:
                proxy.cut()
    assert [result.frame for result in results] == [*range(FRAMES)]
    again = processed(server) - before - FRAMES
    assert again <= server.service.settings.credit  # those whose results were lost on the way


def processed(server: Running) -> int:
    lines = server.http.get("/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("keywarp_frames_total{"))


def test_frames_that_wait_to_be_decoded_keep_their_stream(start: Starter) -> None:
    """Threads for decoding that are all busy, longer than streams may be idle."""
    server = start(idle_timeout=0.5)
    with server.connect("waits", Hello()) as talk:
        talk.frame(jpeg())
        talk.result()
        shares = [server.service._context.workers.share() for _ in range(4)]
        for share in shares:
            share.usual = 0.0  # so that they take all threads
        busy = [share.submit(time.sleep, 1.5) for share in shares]
        talk.frame(jpeg())
        assert talk.result().frame == 1
    for future in busy:
        future.cancel()


def test_a_video_that_is_still_arriving_keeps_its_stream(start: Starter) -> None:
    """Nothing of an MP4 whose index is at its end can be decoded before it is complete."""
    server = start(idle_timeout=0.5)
    data = encode(moving(10), "mp4", NO_DELAY)[0]
    with undisturbed(server), server.connect("arrives", Hello(codec="mp4")) as talk:
        parts = pieces(data, len(data) // 8)
        for part in parts[:-1]:
            talk.frame(part)
            time.sleep(0.2)
        assert server.service.streams.get("arrives") is not None
        talk.frame(parts[-1])


def test_an_expired_stream_may_be_begun_again_but_not_one_that_was_deleted(start: Starter) -> None:
    server = start(idle_timeout=0.3)
    with ThreadPoolExecutor(1) as pool, server.connect("expires", Hello()) as talk:
        problem = pool.submit(talk.error).result().problem
        assert (problem.status, problem.retry_after) == (410, 1)
    with server.connect("deleted", Hello()) as talk:
        server.http.delete("/v1/streams/deleted")
        assert talk.error().problem.retry_after is None


@pytest.mark.parametrize(("id_", "hello"), [("stays", Hello(interval=5)), ("stays-too", Hello(masks="rle"))])
def test_a_resumed_stream_that_is_still_there_keeps_its_options(server: Running, id_: str, hello: Hello) -> None:
    server.http.post("/v1/streams", json={"id": id_, "interval": 3})
    with server.connect(id_, hello.model_copy(update={"resumed": True})) as talk:
        assert talk.ready.interval == 3
        assert talk.ready.options
        assert talk.ready.options.interval == 3
