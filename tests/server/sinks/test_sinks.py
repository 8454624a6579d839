"""Sinks: files, a web server and an MQTT broker get the responses of streams on a real server."""

import asyncio
import hashlib
import hmac
import json
import re
import resource
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from keywarp.protocol import Dropped, Hello
from keywarp.server.errors import SinkError
from keywarp.server.service import Service
from keywarp.server.settings import Settings
from keywarp.server.sinks.delivery import DeliveryPolicy
from keywarp.server.sinks.file import FileSink
from keywarp.server.streams.subscribers import FrameResponse, Subscribers
from tests.server.conftest import PATIENCE, Running, Starter, eventually
from tests.server.media import GREEN, RED, jpeg


def write_site(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sink_count(server: Running, name: str, outcome: str) -> float:
    found = [
        float(line.split()[-1])
        for line in server.http.get("/metrics").text.splitlines()
        if line.startswith(f'keywarp_sink_answers_total{{outcome="{outcome}",sink="{name}"}}')
    ]
    return sum(found)


HASTY = DeliveryPolicy(withdraw_after=0.3, first_wait=0.05, grace_period=1.0)


def hasty(settings: Settings) -> Service:
    """Make a service that doesn't wait long for its sinks."""
    return Service(settings, delivery=HASTY)


# -- files -------------------------------------------------------------------------------------------------------------


def test_every_response_of_a_stream_is_written_to_its_file(start: Starter, tmp_path: Path) -> None:
    server = start(hasty, site=write_site(tmp_path, f'[sinks.archive]\nfile = "{tmp_path}/{{stream}}.ndjson"'))
    with server.connect("door", Hello(sinks=("archive",))) as talk:
        talk.stream([*((i, jpeg()) for i in range(30)), (30, b"no image"), (31, jpeg())])
    eventually(lambda: sink_count(server, "archive", "delivered") == 32)
    written = lines(tmp_path / "door.ndjson")
    assert [(line["type"], line["frame"]) for line in written] == [("result", i) for i in range(30)] + [
        ("error", 30),
        ("result", 31),
    ]


def test_every_line_says_when_and_of_which_stream(start: Starter, tmp_path: Path) -> None:
    server = start(hasty, site=write_site(tmp_path, f'[sinks.archive]\nfile = "{tmp_path}/all"'))
    began = datetime.now(UTC)
    with server.connect("door", Hello(mode="latest", sinks=("archive",))) as talk:
        talk.stream([*((i, jpeg()) for i in range(6)), (6, b"no image")])  # some are dropped, as chance has it
    eventually(lambda: sink_count(server, "archive", "delivered") == 7)
    written = lines(tmp_path / "all")
    assert {line["type"] for line in written} >= {"result", "error"}
    assert {line["stream"] for line in written} == {"door"}
    assert all(began <= datetime.fromisoformat(line["time"]) <= datetime.now(UTC) for line in written)


def test_a_sink_with_classes_gets_only_results_that_show_one(start: Starter, tmp_path: Path) -> None:
    text = f'[sinks.alarm]\nfile = "{tmp_path}/alarm.ndjson"\nclasses = ["red"]'
    server = start(hasty, site=write_site(tmp_path, text))
    created = server.http.post("/v1/streams", json={"id": "door", "interval": 1, "sinks": ["alarm"]})
    assert created.json()["sinks"] == ["alarm"]
    for colour in (GREEN, RED, GREEN, RED):
        assert server.frame("door", jpeg(colour)).is_success
    server.frame("door", b"no image")
    eventually(lambda: sink_count(server, "alarm", "delivered") == 2)
    assert [line["frame"] for line in lines(tmp_path / "alarm.ndjson")] == [1, 3]


def deliver(sink: FileSink, frames: range) -> None:
    responses: list[FrameResponse] = [Dropped(frame=frame, reason="newer") for frame in frames]
    asyncio.run(sink.deliver("door", responses))


def test_a_full_file_is_renamed_and_a_new_one_begins(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path / "a" / "log"), max_bytes=600)
    for part in range(4):
        deliver(sink, range(5 * part, 5 * part + 5))
    kept = lines(tmp_path / "a" / "log.1") + lines(tmp_path / "a" / "log")
    assert kept[-1]["frame"] == 19
    assert [line["frame"] for line in kept] == list(range(kept[0]["frame"], 20))


def test_a_file_that_a_full_disk_cuts_off_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = FileSink(str(path), max_bytes=10**9)
    deliver(sink, range(3))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(SinkError, match="File too large"):
            deliver(sink, range(3, 6))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    deliver(sink, range(3, 6))
    assert [line["frame"] for line in lines(path)] == list(range(6))


# -- webhooks ----------------------------------------------------------------------------------------------------------


class Hook(ThreadingHTTPServer):
    """A web server that takes responses, after it has refused the first `refusals` requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.refusals = 0
        self.unwanted = b""
        self.taken: list[tuple[dict[str, str], bytes]] = []


class _Taker(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refusals:
            self.server.refusals -= 1
            self.send_error(503)
            return
        if self.server.unwanted and self.server.unwanted in body:
            self.send_error(413)
            return
        self.server.taken.append((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_webhook_that_fails_at_first_gets_each_response_once(start: Starter, tmp_path: Path, hook: Hook) -> None:
    text = f"""
        [sinks.hook]
        webhook = "http://127.0.0.1:{hook.server_port}/in"
        headers = {{Authorization = "Bearer me"}}
        secret = "ours"
    """
    server = start(hasty, site=write_site(tmp_path, text))
    hook.refusals = 3
    with server.connect("door", Hello(sinks=("hook",))) as talk:
        talk.stream([(i, jpeg()) for i in range(40)])
    eventually(lambda: sink_count(server, "hook", "delivered") == 40)
    assert sink_count(server, "hook", "failed") == 3
    frames = [json.loads(line)["frame"] for _, body in hook.taken for line in body.splitlines()]
    assert frames == list(range(40))
    headers, body = hook.taken[0]
    assert headers["Keywarp-Stream"] == "door"
    assert headers["Authorization"] == "Bearer me"
    assert headers["Keywarp-Signature"] == "sha256=" + hmac.new(b"ours", body, hashlib.sha256).hexdigest()


def test_only_the_response_that_a_webhook_refuses_is_missed(start: Starter, tmp_path: Path, hook: Hook) -> None:
    server = start(
        hasty, site=write_site(tmp_path, f'[sinks.hook]\nwebhook = "http://127.0.0.1:{hook.server_port}/in"')
    )
    hook.unwanted = b'"frame":7,'
    with server.connect("door", Hello(sinks=("hook",))) as talk:
        talk.stream([(i, jpeg()) for i in range(40)])
    eventually(lambda: sink_count(server, "hook", "delivered") == 39)
    assert sink_count(server, "hook", "missed") == 1
    frames = [json.loads(line)["frame"] for _, body in hook.taken for line in body.splitlines()]
    assert frames == [frame for frame in range(40) if frame != 7]


def test_a_dead_webhook_does_not_delay_a_stream_and_its_missed_responses_are_counted(
    start: Starter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = replace(HASTY, queue_size=8)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        file = write_site(tmp_path, f'[sinks.dead]\nwebhook = "http://127.0.0.1:{nobody.getsockname()[1]}"')
        server = start(partial(Service, delivery=delivery), site=file)
        with server.connect("door", Hello(sinks=("dead",))) as talk:
            answers, done = talk.stream([(i, jpeg()) for i in range(50)])
        assert len(answers) == done.frames == 50
        eventually(lambda: sink_count(server, "dead", "missed") == 50)
        eventually(lambda: not server.tasks("Sinks"))
        assert re.search(r"stream door, sink dead: missed \d+ responses", caplog.text), "the queue overflowed"


# -- MQTT --------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def broker(folder: Path, port: int) -> Iterator[None]:
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if not mosquitto:
        pytest.skip("no MQTT broker: `make packages` installs mosquitto")
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen([mosquitto, "-c", config], stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _accepts(port))
            yield
        finally:
            process.kill()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_broker_gets_every_response_even_after_it_was_away(start: Starter, tmp_path: Path) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    port = free_port()
    text = f'[sinks.bus]\nmqtt = "mqtt://127.0.0.1:{port}"\ntopic = "site/{{stream}}/{{type}}"'
    server = start(hasty, site=write_site(tmp_path, text))
    received: list[tuple[str, int]] = []

    def listen() -> Client:
        client = Client(CallbackAPIVersion.VERSION2)
        client.on_message = lambda *args: received.append((args[2].topic, json.loads(args[2].payload)["frame"]))
        client.connect("127.0.0.1", port)
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.loop_start()
        client.subscribe("site/#", 1)
        assert subscribed.wait(10)
        return client

    server.http.post("/v1/streams", json={"id": "door", "sinks": ["bus"]})
    with broker(tmp_path, port):
        client = listen()
        server.frame("door")
        server.frame("door", b"no image")
        eventually(lambda: received == [("site/door/result", 0), ("site/door/error", 1)])
        client.disconnect()
    server.frame("door")
    eventually(lambda: sink_count(server, "bus", "failed") > 0)
    with broker(tmp_path, port):
        eventually(lambda: sink_count(server, "bus", "delivered") == 3)
    client.loop_stop()
    assert sink_count(server, "bus", "missed") == 0


# -- names and ends of streams ----------------------------------------------------------------------------------------


def test_a_stream_with_an_unknown_sink_is_refused(server: Running) -> None:
    refused = server.http.post("/v1/streams", json={"sinks": ["nowhere"]})
    assert refused.status_code == 400
    assert "nowhere" in refused.json()["detail"]
    video = server.http.post("/v1/videos", params={"codec": "mpegts", "sinks": ["nowhere"]}, content=b"")
    assert video.status_code == 400


def test_a_subscriber_of_a_closed_stream_learns_at_once_that_it_is_closed() -> None:
    async def subscribe() -> None:
        subscribers: Subscribers[FrameResponse] = Subscribers()
        subscribers.close()
        with subscribers.subscribe() as subscription, subscribers.preview() as preview:
            assert await subscription.take() == (0, [])
            assert await preview.take() is None
            assert subscription.closed_at is not None
            await subscription.pause(0.01)

    asyncio.run(asyncio.wait_for(subscribe(), PATIENCE))
