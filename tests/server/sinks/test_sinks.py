"""Where results go besides: files, a web server, an MQTT broker; and the operator's file that says so."""

import asyncio
import hashlib
import hmac
import json
import resource
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from keywarp.protocol import Dropped, Hello
from keywarp.server import Server, Settings
from keywarp.server.config import read_site
from keywarp.server.errors import SinkError, SiteError
from keywarp.server.sinks.file import FileSink
from keywarp.server.streams.subscribers import FrameResponse, Subscribers
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import B_FRAMES, GREEN, RED, jpeg, mpegts
from tests.server.test_pulls import Shelf, file, until


def site(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sink_figure(server: Running, name: str, outcome: str) -> float:
    found = [
        float(line.split()[-1])
        for line in server.http.get("/metrics").text.splitlines()
        if line.startswith(f'keywarp_sink_answers_total{{outcome="{outcome}",sink="{name}"}}')
    ]
    return sum(found)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keywarp.server.sinks.dispatch.FIRST_WAIT", 0.05)
    monkeypatch.setattr("keywarp.server.sinks.dispatch.FAREWELL", 1.0)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_streams_answers_go_to_its_file_to_the_last(start: Starter, tmp_path: Path) -> None:
    server = start(site=site(tmp_path, f'[sinks.archive]\nfile = "{tmp_path}/{{stream}}.ndjson"'))
    with server.connect("door", Hello(sinks=("archive",))) as talk:
        talk.stream([*((i, jpeg()) for i in range(30)), (30, b"no image"), (31, jpeg())])
    eventually(lambda: sink_figure(server, "archive", "delivered") == 32)
    written = lines(tmp_path / "door.ndjson")
    assert [(line["type"], line["frame"]) for line in written] == [("result", i) for i in range(30)] + [
        ("error", 30),
        ("result", 31),
    ]


def test_only_results_with_certain_classes_are_taken(start: Starter, tmp_path: Path) -> None:
    text = f'[sinks.alarm]\nfile = "{tmp_path}/alarm.ndjson"\nclasses = ["red"]'
    server = start(site=site(tmp_path, text))
    created = server.http.post("/v1/streams", json={"id": "door", "interval": 1, "sinks": ["alarm"]})
    assert created.json()["sinks"] == ["alarm"]
    for colour in (GREEN, RED, GREEN, RED):
        assert server.frame("door", jpeg(colour)).is_success
    server.frame("door", b"no image")
    eventually(lambda: sink_figure(server, "alarm", "delivered") == 2)
    assert [line["frame"] for line in lines(tmp_path / "alarm.ndjson")] == [1, 3]


def deliver(sink: FileSink, frames: range) -> None:
    answers: list[FrameResponse] = [Dropped(frame=frame, reason="newer") for frame in frames]
    asyncio.run(sink.deliver("door", answers))


def test_a_full_file_makes_room_for_the_next(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path / "a" / "log"), max_bytes=600)
    for part in range(4):
        deliver(sink, range(5 * part, 5 * part + 5))
    kept = lines(tmp_path / "a" / "log.1") + lines(tmp_path / "a" / "log")
    assert kept[-1]["frame"] == 19
    assert [line["frame"] for line in kept] == list(range(kept[0]["frame"], 20))


def test_what_a_full_disk_takes_half_is_taken_back(tmp_path: Path) -> None:
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
    """A web server that takes answers, or refuses so often first."""

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


def test_a_webhook_gets_each_answer_once_however_often_it_fails(start: Starter, tmp_path: Path, hook: Hook) -> None:
    text = f"""
        [sinks.hook]
        webhook = "http://127.0.0.1:{hook.server_port}/in"
        headers = {{Authorization = "Bearer me"}}
        secret = "ours"
    """
    server = start(site=site(tmp_path, text))
    hook.refusals = 3
    with server.connect("door", Hello(sinks=("hook",))) as talk:
        talk.stream([(i, jpeg()) for i in range(40)])
    eventually(lambda: sink_figure(server, "hook", "delivered") == 40)
    assert sink_figure(server, "hook", "failed") == 3
    frames = [json.loads(line)["frame"] for _, body in hook.taken for line in body.splitlines()]
    assert frames == list(range(40))
    headers, body = hook.taken[0]
    assert headers["Keywarp-Stream"] == "door"
    assert headers["Authorization"] == "Bearer me"
    assert headers["Keywarp-Signature"] == "sha256=" + hmac.new(b"ours", body, hashlib.sha256).hexdigest()


def test_answers_that_a_webhook_never_takes_are_missed_and_others_not(
    start: Starter, tmp_path: Path, hook: Hook
) -> None:
    server = start(site=site(tmp_path, f'[sinks.hook]\nwebhook = "http://127.0.0.1:{hook.server_port}/in"'))
    hook.unwanted = b'"frame":7,'
    with server.connect("door", Hello(sinks=("hook",))) as talk:
        talk.stream([(i, jpeg()) for i in range(40)])
    eventually(lambda: sink_figure(server, "hook", "delivered") == 39)
    assert sink_figure(server, "hook", "missed") == 1
    frames = [json.loads(line)["frame"] for _, body in hook.taken for line in body.splitlines()]
    assert frames == [frame for frame in range(40) if frame != 7]


def test_a_dead_webhook_holds_nobody_up_and_what_is_too_much_is_counted(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keywarp.server.sinks.dispatch.WAITING", 8)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        server = start(site=site(tmp_path, f'[sinks.dead]\nwebhook = "http://127.0.0.1:{nobody.getsockname()[1]}"'))
        with server.connect("door", Hello(sinks=("dead",))) as talk:
            answers, done = talk.stream([(i, jpeg()) for i in range(50)])
        assert len(answers) == done.frames == 50
        eventually(lambda: sink_figure(server, "dead", "missed") == 50)
        eventually(lambda: not server.tasks("Sinks"))


# -- MQTT --------------------------------------------------------------------------------------------------------------


@contextmanager
def broker(folder: Path, port: int) -> Iterator[None]:
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if not mosquitto:
        pytest.skip("no MQTT broker: `make packages` installs mosquitto")
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen([mosquitto, "-c", config], stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _answers(port))
            yield
        finally:
            process.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_broker_gets_each_answer_also_after_it_was_away(start: Starter, tmp_path: Path) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    text = f'[sinks.bus]\nmqtt = "mqtt://127.0.0.1:{port}"\ntopic = "site/{{stream}}/{{type}}"'
    server = start(site=site(tmp_path, text))
    heard: list[tuple[str, int]] = []

    def listen() -> Client:
        client = Client(CallbackAPIVersion.VERSION2)
        client.on_message = lambda *args: heard.append((args[2].topic, json.loads(args[2].payload)["frame"]))
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
        eventually(lambda: heard == [("site/door/result", 0), ("site/door/error", 1)])
        client.disconnect()
    server.frame("door")
    eventually(lambda: sink_figure(server, "bus", "failed") > 0)
    with broker(tmp_path, port):
        eventually(lambda: sink_figure(server, "bus", "delivered") == 3)
    client.loop_stop()
    assert sink_figure(server, "bus", "missed") == 0


# -- the operator's file -----------------------------------------------------------------------------------------------


def test_the_operators_streams_are_pulled_from_the_start(start: Starter, tmp_path: Path) -> None:
    with Shelf() as shelf:
        threading.Thread(target=shelf.serve_forever, daemon=True).start()
        shelf.answers["/clip.ts"] = file(mpegts(40, B_FRAMES))
        text = f"""
            [streams.gate]
            source = "{shelf.address}/clip.ts"
            interval = 5
            sinks = ["archive"]

            [sinks.archive]
            file = "{tmp_path}/{{stream}}.ndjson"
        """
        server = start(site=site(tmp_path, text))  # and no --allow-pull
        ended = until(server, "gate", "ended")
        assert (ended["frames"], ended["key_frames"], ended["sinks"]) == (40, 8, ["archive"])
        eventually(lambda: sink_figure(server, "archive", "delivered") == 40)
        shelf.shutdown()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("streams = 3", "streams"),
        ("[streams.gate]\ninterval = 3", r"streams\.gate\.source"),
        ('[streams.gate]\nsource = "file:///etc/passwd"', "must be a URL in ASCII, with the scheme rtsp"),
        ('[streams."a b"]\nsource = "rtsp://camera/"', "streams"),
        ('[streams.gate]\nsource = "rtsp://camera/"\nsinks = ["x"]', "no sink 'x'"),
        ("[sinks.x]", r"sinks\.x\.file"),
        ('[sinks.x]\nwebhook = "ftp://x"', "webhook"),
        ('[sinks.x]\nmqtt = "mqtt://x"\ntopic = "a/#"', "topic"),
        ('[sinks.x]\nmqtt = "mqtt://u:a#1@x"', "in a password"),
        ("[sinks", "can't be read"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SiteError, match=says):
        read_site(site(tmp_path, text))


def test_a_stream_that_cannot_be_ends_the_server(models: Path, tmp_path: Path) -> None:
    text = '[streams.gate]\nsource = "rtsp://127.0.0.1:1/"\nmodel = "other"'
    server = Server(Settings(models=models, port=0, backend="onnxruntime", site=site(tmp_path, text)))
    server.run()
    assert isinstance(server.service.failure, SiteError)
    assert "streams.gate: there is no model 'other'" in str(server.service.failure)


def test_unknown_sinks_are_refused(server: Running) -> None:
    refused = server.http.post("/v1/streams", json={"sinks": ["nowhere"]})
    assert refused.status_code == 400
    assert "nowhere" in refused.json()["detail"]
    video = server.http.post("/v1/videos", params={"codec": "mpegts", "sinks": ["nowhere"]}, content=b"")
    assert video.status_code == 400


def test_who_comes_after_the_end_is_told_at_once() -> None:
    async def come() -> None:
        subscribers = Subscribers()
        subscribers.close()
        with subscribers.subscribe() as subscription, subscribers.preview() as preview:
            assert await subscription.take() == (0, [])
            assert await preview.take() is None
            assert subscription.closed_at is not None
            await subscription.pause(0.01)

    started = time.monotonic()
    asyncio.run(come())
    assert time.monotonic() - started < 5
