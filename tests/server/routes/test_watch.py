"""Subscribers of a stream, on a real server."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

from keywarp.protocol import Dropped, Error, Gone, Hello, Missed, Result, WatchMessage
from keywarp.server.routes import wall
from keywarp.server.routes.watch import MAX_SUBSCRIBERS
from keywarp.server.streams.subscribers import BACKLOG, FrameResponse, Subscribers
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import GREEN, RED, jpeg

Message = Result | Error | Dropped | Missed | Gone


@contextmanager
def watching(server: Running, stream: str) -> Iterator[Iterator[Message]]:
    """Subscribe to a stream's responses, and give them from now on."""
    with server.http.stream("GET", f"/v1/streams/{stream}/results") as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        eventually(lambda: server.service.streams[stream].subscribers.want_responses)
        yield (WatchMessage.validate_json(line) for line in response.iter_lines())


def test_a_subscriber_receives_all_responses_in_order_and_the_reason_of_the_end(server: Running) -> None:
    with server.connect("watched", Hello(interval=3)) as talk:
        talk.frame(jpeg())
        talk.result()
        with watching(server, "watched") as messages:
            talk.frame(jpeg(), 1)
            talk.frame(b"no image", 2)
            talk.frame(jpeg(), 3)
            first, second, third = next(messages), next(messages), next(messages)
            assert isinstance(first, Result)
            assert (first.frame, first.id, first.kind) == (1, 1, "propagated")
            assert isinstance(second, Error)
            assert (second.frame, second.id, second.problem.status) == (2, 2, 415)
            assert isinstance(third, Result)
            assert (third.frame, third.reason) == (3, "gap")
            assert server.http.get("/v1/streams/watched").json()["watchers"] == 1
            server.http.delete("/v1/streams/watched")
            last = next(messages)
            assert isinstance(last, Gone)
            assert "deleted" in last.reason
            assert list(messages) == []


def test_a_subscriber_receives_the_last_response_before_the_end(server: Running) -> None:
    with server.connect("short", Hello()) as talk, watching(server, "short") as messages:
        talk.stream([(i, jpeg()) for i in range(5)])
        assert [message.type for message in messages] == ["result"] * 5 + ["gone"]


def test_single_frames_and_sequences_have_subscribers_too(server: Running) -> None:
    server.http.post("/v1/streams", json={"id": "single"})
    with watching(server, "single") as messages:
        assert server.frame("single", id="a").is_success
        assert server.frame("single", b"no image", id="b").status_code == 415
        assert [(m.type, getattr(m, "id", None)) for m in (next(messages), next(messages))] == [
            ("result", "a"),
            ("error", "b"),
        ]
    asked = {"parameters": {"sequence_id": 5, "sequence_start": True}}
    frame = {"name": "frame", "shape": [32, 32, 3], "datatype": "UINT8", "data": [0] * 3072}
    assert server.http.post("/v2/models/tiny/infer", json={**asked, "inputs": [frame]}).is_success
    [sequence] = [stream.id for stream in server.service.streams if stream.id != "single"]
    with watching(server, sequence) as messages:
        body = {"parameters": {"sequence_id": 5}, "inputs": [frame]}
        assert server.http.post("/v2/models/tiny/infer", json=body).is_success
        message = next(messages)
        assert isinstance(message, Result)
        assert (message.frame, message.kind) == (1, "propagated")
    for stream in ("single", sequence):
        server.http.delete(f"/v1/streams/{stream}")


def test_a_subscriber_receives_the_errors_of_the_engine(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    with server.connect("failing", Hello()) as talk, watching(server, "failing") as messages:
        with monkeypatch.context() as patch:
            patch.setattr(server.service.streams["failing"].engine, "key", fail)
            talk.frame(jpeg(), 7)
            error = talk.error()
        assert (error.frame, error.id, error.problem.status, error.fatal) == (0, 7, 500, False)
        assert next(messages) == error.model_copy(update={"credit": None})
        talk.frame(jpeg())
        assert talk.result().reason == "start"


def test_a_slow_subscriber_learns_how_many_responses_it_missed() -> None:
    async def subscribe() -> None:
        subscribers: Subscribers[FrameResponse] = Subscribers()
        with subscribers.subscribe() as subscription:
            for frame in range(BACKLOG + 3):
                subscribers.publish(Dropped(frame=frame, reason="newer"))
            missed, responses = await subscription.take()
            assert missed == 3
            assert [response.frame for response in responses] == list(range(3, BACKLOG + 3))
            subscribers.publish(Dropped(frame=999, reason="newer"))
            assert (await subscription.take())[0] == 0
        assert not subscribers

    asyncio.run(subscribe())


def test_subscribing_to_a_closed_stream_ends_at_once() -> None:
    async def subscribe() -> None:
        subscribers: Subscribers[FrameResponse] = Subscribers()
        subscribers.close()
        with subscribers.subscribe() as subscription, subscribers.preview() as preview:
            assert await asyncio.wait_for(subscription.take(), 10) == (0, [])
            assert await asyncio.wait_for(preview.take(), 10) is None

    asyncio.run(subscribe())


def test_a_subscriber_that_disconnects_leaves_nothing_behind(server: Running) -> None:
    kinds = "EndlessResponse.", "_SubscriberResponse.", "_raise_when_disconnected"
    with server.connect("left", Hello()) as talk:
        with watching(server, "left"):
            assert len(server.tasks(*kinds)) == 3  # the watchers of one response
        with previewing(server, "left"):
            pass
        eventually(lambda: not server.service.streams["left"].subscribers)
        eventually(lambda: not server.tasks(*kinds))
        talk.frame(jpeg())
        talk.result()


def test_a_stream_takes_no_more_subscribers_than_allowed(server: Running) -> None:
    server.http.post("/v1/streams", json={"id": "popular"})
    with ExitStack() as subscribed:
        for _ in range(MAX_SUBSCRIBERS):
            subscribed.enter_context(watching(server, "popular"))
        refused = server.http.get("/v1/streams/popular/preview")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert server.http.get("/v1/streams/unknown/results").status_code == 404
    server.http.delete("/v1/streams/popular")


def test_a_server_that_stops_tells_its_subscribers(start: Starter) -> None:
    server = start()
    server.http.post("/v1/streams", json={"id": "last"})
    with watching(server, "last") as messages:
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert next(messages) == Gone(reason="the server stops")
    stopping.join()


@contextmanager
def previewing(server: Running, stream: str, **query: str) -> Iterator[Iterator[Image.Image]]:
    """Open a stream's preview, and give its pictures from now on."""

    def pictures(response: httpx.Response, boundary: bytes) -> Iterator[Image.Image]:
        data = b""
        for chunk in response.iter_bytes():
            data += chunk
            while (end := data.find(b"\r\n\r\n")) > 0:
                head, rest = data[:end], data[end + 4 :]
                assert head.startswith(b"--" + boundary + b"\r\nContent-Type: image/jpeg\r\nKeywarp-Stream: ")
                length = int(head.rpartition(b" ")[2])
                if len(rest) < length + 2:
                    break
                yield Image.open(BytesIO(rest[:length]))
                data = rest[length + 2 :]
        assert data == b"--" + boundary + b"--\r\n"

    with server.http.stream("GET", f"/v1/streams/{stream}/preview", params=query) as response:
        kind, _, boundary = response.headers["content-type"].partition("; boundary=")
        assert kind == "multipart/x-mixed-replace"
        eventually(lambda: bool(server.service.streams[stream].subscribers))
        yield pictures(response, boundary.encode())


def test_a_preview_shows_frames_with_their_results_drawn_in(server: Running) -> None:
    with server.connect("shown", Hello(interval=1)) as talk, previewing(server, "shown", width="80", fps="60") as shown:
        for colour in (GREEN, RED):
            talk.frame(jpeg(colour, width=160, height=96))
            talk.result()
            picture = next(shown)
            assert (picture.size, picture.format) == ((80, 48), "JPEG")
            expected = np.mean([colour, colour_of(server, colour)], axis=0)
            np.testing.assert_allclose(np.asarray(picture)[40, 60], expected, atol=12)
        server.http.delete("/v1/streams/shown")
        assert list(shown) == []


def test_zones_are_left_out_of_a_preview_on_demand(server: Running) -> None:
    server.http.post("/v1/streams", json={"id": "zoned", "interval": 1})
    rules = {"zones": {"all": [[0.1, 0.3], [0.9, 0.3], [0.9, 0.9], [0.1, 0.9]]}}
    assert server.http.put("/v1/streams/zoned/rules", json=rules).is_success
    with (
        previewing(server, "zoned", fps="60") as shown,
        previewing(server, "zoned", fps="60", zones="false") as plain,
    ):
        eventually(lambda: len(server.service.streams["zoned"].subscribers) == 2)
        assert server.frame("zoned", jpeg(GREEN, width=160, height=96)).is_success
        drawn, bare = (np.asarray(next(pictures)).astype(int) for pictures in (shown, plain))
        difference = np.abs(drawn - bare).max(axis=2)
        assert difference[:, 20:140].max(axis=0).min() > 30, "the zone's sides"
        assert difference[60:75, 80:130].max() < 10, "inside of the zone"
        server.http.delete("/v1/streams/zoned")


def test_one_connection_shows_all_streams_as_they_come_and_go(server: Running) -> None:
    for stream in ("left", "right"):
        server.http.post("/v1/streams", json={"id": stream})
    query = {"fps": "10", "width": "80"}

    def heads(response: httpx.Response) -> Iterator[dict[str, str]]:
        data = b""
        for chunk in response.iter_bytes():
            data += chunk
            while (end := data.find(b"\r\n\r\n")) > 0:
                head = dict(line.split(": ") for line in data[:end].decode().split("\r\n")[1:])
                size = end + 4 + int(head["Content-Length"]) + 2
                if len(data) < size:
                    break
                yield head
                data = data[size:]

    with server.http.stream("GET", "/v1/previews", params=query) as response:
        eventually(lambda: all(len(one.subscribers) == 1 for one in server.service.streams))
        pictures = heads(response)
        for stream in ("left", "right", "left"):
            assert server.frame(stream).is_success
            assert next(pictures)["Keywarp-Stream"] == stream
        server.http.delete("/v1/streams/left")
        server.http.post("/v1/streams", json={"id": "new"})
        eventually(lambda: len(server.service.streams["new"].subscribers) == 1)
        assert server.frame("new").is_success
        head = next(pictures)
        assert (head["Keywarp-Stream"], head["Keywarp-Frame"], head["Content-Type"]) == ("new", "0", "image/jpeg")
    eventually(lambda: not any(len(one.subscribers) for one in server.service.streams))
    with server.http.stream("GET", "/v1/previews", params={**query, "stream": ["right"]}):
        eventually(lambda: len(server.service.streams["right"].subscribers) == 1)
        assert not server.service.streams["new"].subscribers
    for stream in ("right", "new"):
        server.http.delete(f"/v1/streams/{stream}")


def test_many_streams_share_the_pictures_of_one_connection(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall, "MAX_PICTURES", 0.001)
    server.http.post("/v1/streams", json={"id": "shared"})
    with server.http.stream("GET", "/v1/previews", params={"fps": "10"}, timeout=1.0) as response:
        eventually(lambda: len(server.service.streams["shared"].subscribers) == 1)  # the next look is in 1000 s
        for _ in range(3):
            assert server.frame("shared").is_success
        with pytest.raises(httpx.ReadTimeout):
            next(chunk for chunk in response.iter_raw() if chunk)
    server.http.delete("/v1/streams/shared")


def colour_of(server: Running, colour: tuple[int, int, int]) -> tuple[int, ...]:
    [model] = server.service.models
    [info] = [info for info in model.bundle.manifest.classes if info.name == ("green" if colour == GREEN else "red")]
    return info.color


@pytest.mark.parametrize("query", [{"fps": "0"}, {"width": "10000"}, {"size": "3"}])
def test_options_of_previews_are_checked(server: Running, query: dict[str, str]) -> None:
    server.http.post("/v1/streams", json={"id": "odd"})
    assert server.http.get("/v1/streams/odd/preview", params=query).status_code == 422
    server.http.delete("/v1/streams/odd")


def test_a_stream_shows_live_figures(server: Running) -> None:
    with server.connect("alive", Hello(interval=4)) as talk:
        assert server.http.get("/v1/streams/alive").json()["live"]["fps"] == 0
        for _ in range(8):
            talk.frame(jpeg())
            talk.result()
        live = server.http.get("/v1/streams/alive").json()["live"]
        assert live["fps"] > 0
        assert 0 < live["latency_p50"] <= live["latency_p95"]
        assert live["key_share"] == 0.25
