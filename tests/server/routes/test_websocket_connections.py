"""How WebSocket connections begin, share streams, and end, on a real server."""

import json
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from websockets.exceptions import InvalidStatus

from keywarp.protocol import CloseCode, Hello, Result
from tests.server.conftest import LANES, Running, Starter, eventually
from tests.server.media import (
    B_FRAMES,
    h264,
    jpeg,
    mpegts,
)


def test_the_subprotocol_is_required(server: Running) -> None:
    for subprotocols in (None, ["keywarp.v0"]):
        with pytest.raises(InvalidStatus) as refused, server.connect("s", subprotocols=subprotocols):
            pass
        assert refused.value.response.status_code == 400
        assert "keywarp.v1" in json.loads(refused.value.response.body or b"")["detail"]


def test_the_stream_id_is_checked(server: Running) -> None:
    with pytest.raises(InvalidStatus) as refused, server.connect("a%20b"):
        pass
    assert refused.value.response.status_code == 400


def test_permessage_deflate_is_off(server: Running) -> None:
    with server.connect("s", compression="deflate") as talk:
        assert talk.socket.protocol.extensions == []


def test_a_connection_attaches_to_an_existing_stream_and_leaves_it_behind(server: Running) -> None:
    server.http.post("/v1/streams", json={"id": "mine", "interval": 3})
    assert server.frame("mine").json()["frame"] == 0
    with server.connect("mine", Hello(model="tiny")) as talk:
        assert talk.ready.interval == 3
        answers, done = talk.stream([(None, jpeg())])
    assert [(a.frame, a.kind) for a in answers if isinstance(a, Result)] == [(1, "key")]
    assert done.frames == 1
    info = server.http.get("/v1/streams/mine").json()
    assert (info["frames"], info["connected"]) == (2, False)


@pytest.mark.parametrize(
    "hello",
    [Hello(model="other"), Hello(interval=5), Hello(schedule="adaptive"), Hello(mode="latest"), Hello(masks="rle")],
)
def test_an_existing_stream_keeps_its_options(server: Running, hello: Hello) -> None:
    server.http.post("/v1/streams", json={"id": "kept"})
    with server.connect("kept") as talk:
        talk.send(hello)
        assert talk.close_code() == CloseCode.BAD_MESSAGE


def test_a_stream_takes_one_connection_at_a_time(server: Running) -> None:
    with server.connect("busy", Hello()) as first:
        with server.connect("busy") as second:
            second.send(Hello())
            assert second.close_code() == CloseCode.STREAM_BUSY
        first.frame(jpeg())
        assert first.result().frame == 0


def test_a_connection_beyond_the_limit_of_streams_is_refused(start: Starter) -> None:
    server = start(max_streams=1)
    with server.connect("one", Hello()), server.connect("two") as talk:
        talk.send(Hello())
        assert talk.error().problem.status == 429
        assert talk.close_code() == CloseCode.TRY_AGAIN_LATER


def test_a_message_over_the_limit_closes_the_connection(start: Starter) -> None:
    server = start(max_message_bytes=10_000)
    with server.connect("large", Hello()) as talk:
        assert talk.ready.max_message_bytes == 10_000
        talk.frame(bytes(10_000))
        assert talk.close_code() == CloseCode.MESSAGE_TOO_BIG
    eventually(lambda: len(server.service.streams) == 0)


def test_a_client_that_never_sends_hello_is_disconnected(start: Starter) -> None:
    server = start(hello_timeout=0.1)
    with server.connect("silent") as talk:
        assert talk.close_code() == CloseCode.HELLO_TIMEOUT


def test_deleting_a_stream_closes_its_connection(server: Running) -> None:
    with server.connect("doomed", Hello()) as talk:
        server.http.delete("/v1/streams/doomed")
        assert "deleted" in talk.error().problem.detail
        assert talk.close_code() == CloseCode.STREAM_GONE


def test_deleting_a_stream_cancels_its_queued_frames(start: Starter) -> None:
    server = start()
    release = server.hold_device()
    with server.connect("doomed", Hello()) as talk:
        for _ in range(8):
            talk.frame(jpeg())
        device = server.service.devices[0].executor
        eventually(lambda: device.depth > LANES + 1)
        server.http.delete("/v1/streams/doomed")
        assert talk.close_code() == CloseCode.STREAM_GONE
        eventually(lambda: device.depth == LANES)  # the frames that keep the device busy
    release()
    assert "keywarp_frames_total{" not in server.http.get("/metrics").text


def test_disconnecting_cancels_the_queued_frames_of_a_stream_that_stays(start: Starter) -> None:
    server = start()
    server.http.post("/v1/streams", json={"id": "stays"})
    release = server.hold_device()
    device = server.service.devices[0].executor
    with server.connect("stays", Hello()) as talk:
        for _ in range(8):
            talk.frame(jpeg())
        eventually(lambda: device.depth > LANES + 1)
    eventually(lambda: device.depth == LANES)  # the frames that keep the device busy
    release()
    assert server.frame("stays").json()["kind"] == "key"


def test_an_idle_connection_expires_but_one_with_frames_does_not(start: Starter) -> None:
    server = start(idle_timeout=0.5)
    with server.connect("idle", Hello()) as idle, server.connect("busy", Hello()) as busy:
        with ThreadPoolExecutor(1) as pool:
            closed = pool.submit(idle.close_code)
            while not wait([closed], timeout=0.05).done:
                busy.frame(jpeg())
                busy.result()
        assert closed.result() == CloseCode.STREAM_GONE
        busy.frame(jpeg())
        busy.result()


@pytest.mark.parametrize(
    ("hello", "payload"),
    [
        (Hello(), jpeg(width=1920, height=1080)),
        (Hello(codec="h264", framing="chunks"), b"".join(unit for _, unit in h264(100, B_FRAMES))),
        (Hello(codec="mpegts"), mpegts(100, B_FRAMES)),
    ],
    ids=["image", "h264", "mpegts"],
)
def test_a_client_that_disconnects_frees_everything(server: Running, hello: Hello, payload: bytes) -> None:
    for _ in range(3):
        with server.connect("ghost", hello) as talk:
            for _ in range(5):
                talk.frame(payload)
            talk.result()
            assert [thread.name for thread in server.demuxers()] == ["keywarp-demuxer"] * (hello.codec == "mpegts")
            assert server.tasks("Connection._receive_all", "Pipeline.feed", "Stream.raise_when_closed")
            talk.socket.socket.shutdown(2)  # without a close frame
        eventually(lambda: server.service.streams.get("ghost") is None)
        eventually(lambda: not server.tasks())
        eventually(lambda: not server.demuxers())
