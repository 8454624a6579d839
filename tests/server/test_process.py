"""The server as a process: how it starts and stops."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from keywarp.protocol import CloseCode, Hello
from keywarp.server.streams import registry
from tests.server.conftest import LANES, Starter, eventually
from tests.server.media import jpeg
from tests.tiny_bundle import tiny_bundle


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "keywarp.cli", "serve", "--port", "0", "--backend", "onnxruntime", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_server_prints_its_url_serves_and_stops_on_a_signal(models: Path, stop: signal.Signals) -> None:
    with process("--models", str(models)) as running:
        assert running.stdout
        line = running.stdout.readline()
        assert line.startswith("keywarp: listening on http://127.0.0.1:")
        url = line.split()[-1]
        assert httpx.get(f"{url}/healthz").is_success
        eventually(lambda: httpx.get(f"{url}/readyz").is_success)
        running.send_signal(stop)
        assert running.wait(20) == 0


def test_a_damaged_bundle_ends_the_server_with_one_sentence(tmp_path: Path) -> None:
    graph = tiny_bundle(tmp_path / "tiny").path / "flow.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    with process("--models", str(tmp_path)) as running:
        _, errors = running.communicate(timeout=30)
        assert running.returncode == 1
    assert "flow.onnx doesn't match its manifest" in errors
    assert "Traceback" not in errors


def test_a_port_in_use_ends_the_server_with_one_sentence(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process("--models", str(models), "--port", str(port)) as running:
            _, errors = running.communicate(timeout=30)
            assert running.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in errors
    assert "Traceback" not in errors


def test_a_draining_server_finishes_queued_frames_and_takes_no_new_work(start: Starter) -> None:
    server = start()
    http = httpx.Client(base_url=server.url)
    http.post("/v1/streams", json={"id": "single"})
    with server.connect("one", Hello()) as one, server.connect("two", Hello()) as two:
        talks = one, two
        release = server.hold_device()
        for talk in talks:
            for i in range(8):
                talk.frame(jpeg(), i)
        eventually(lambda: server.service.devices[0].executor.depth > LANES + 1)
        server.server.should_exit = True
        eventually(lambda: http.get("/readyz").status_code == 503)
        assert http.get("/healthz").is_success
        assert http.post("/v1/streams", json={}).status_code == 503
        assert http.post("/v1/streams/single/frames", content=jpeg()).status_code == 503
        given = [talk.credit for talk in talks]
        release()
        for talk in talks:
            assert [talk.result().id for _ in range(8)] == list(range(8))
            assert talk.credit == given[talks.index(talk)], "credit for frames that nobody takes any more"
            assert talk.close_code() == CloseCode.SERVICE_RESTART
    http.close()


def test_connections_tasks_and_threads_are_metrics_that_come_back_to_what_they_were(start: Starter) -> None:
    server = start()

    def held() -> tuple[float, float]:
        metrics = dict(line.rsplit(" ", 1) for line in server.http.get("/metrics").text.splitlines())
        assert float(metrics["keywarp_threads"]) > 1
        return float(metrics["keywarp_connections"]), float(metrics["keywarp_tasks"])

    before = held()
    with server.connect("counted", Hello()) as talk:
        talk.frame(jpeg())
        talk.result()
        during = held()
        assert during[0] == before[0] + 1
        assert during[1] > before[1]
    eventually(lambda: held() == before)


def test_memory_is_given_back_to_the_system_after_streams_ended(
    monkeypatch: pytest.MonkeyPatch, start: Starter
) -> None:
    released: list[bool] = []
    monkeypatch.setattr(registry, "RELEASE_PERIOD", 0.05)
    monkeypatch.setattr(registry, "release_unused_memory", lambda: released.append(True))
    server = start()
    with server.connect("ends", Hello()) as talk:
        talk.frame(jpeg())
        talk.result()
        assert not released, "no stream has ended yet"
    eventually(lambda: bool(released))
