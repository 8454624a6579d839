"""Watching streams by both clients, on a real server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from keywarp.cli.main import app
from keywarp.client import ApiError, Client, ConnectError, ProtocolError
from keywarp.protocol import Hello
from tests.client.twins import Twin
from tests.server.conftest import Running, eventually, running
from tests.server.media import jpeg
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = tmp_path_factory.mktemp("models")
    tiny_bundle(models / "tiny")
    server = running(models)
    server.start()
    yield server
    server.stop()


def watchers(server: Running, stream: str) -> int:
    with Client(server.url) as client:
        return client.stream_info(stream).watchers


def feed(server: Running, stream: str, frames: int) -> None:
    """Open a stream that gets frames as soon as it has a watcher, and then ends."""

    def run() -> None:
        with server.connect(stream, Hello(interval=4)) as talk:
            eventually(lambda: watchers(server, stream) > 0)
            talk.stream([*((i, jpeg()) for i in range(frames)), (frames, b"no image")])

    threading.Thread(target=run).start()
    with Client(server.url) as client:
        eventually(lambda: stream in [info.id for info in client.streams()])


def test_results_come_until_the_stream_ends(twin: Twin, server: Running) -> None:
    feed(server, "gate", 9)
    results, watch = twin.watch(server.url, "gate")
    assert [(r.frame, r.kind) for r in results] == [(i, "propagated" if i % 4 else "key") for i in range(9)]
    assert (watch.errors, watch.dropped, watch.missed) == (1, 0, 0)
    assert "ended" in watch.over


def test_leaving_early_ends_the_watch_on_the_server(twin: Twin, server: Running) -> None:
    with server.connect("left", Hello()) as talk:
        watching = threading.Thread(target=lambda: twin.watch(server.url, "left", at_most=1))
        watching.start()
        eventually(lambda: watchers(server, "left") == 1)
        talk.frame(jpeg())
        talk.result()
        watching.join(20)
        eventually(lambda: watchers(server, "left") == 0)


def test_an_unknown_stream_is_reported(twin: Twin, server: Running) -> None:
    with pytest.raises(ApiError, match="there is no stream 'nobody'"):
        twin.watch(server.url, "nobody")


def test_an_unreachable_server_is_reported(twin: Twin) -> None:
    with pytest.raises(ConnectError, match="keywarp serve"):
        twin.watch("http://127.0.0.1:9", "gate")


@pytest.fixture
def scripted() -> Iterator[tuple[str, list[bytes]]]:
    """A server whose response is what a test wrote into a list."""
    lines: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"".join(lines))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", lines
        server.shutdown()


def test_a_response_without_its_last_line_is_a_broken_connection(twin: Twin, scripted: tuple[str, list[bytes]]) -> None:
    address, lines = scripted
    lines.append(b'{"type":"missed","count":3}\n')
    with pytest.raises(ConnectError, match="broke"):
        twin.watch(address, "gate")


def test_a_line_that_is_no_message_is_reported(twin: Twin, scripted: tuple[str, list[bytes]]) -> None:
    address, lines = scripted
    lines.append(b"hello\n")
    with pytest.raises(ProtocolError, match="hello"):
        twin.watch(address, "gate")


def test_the_command_prints_one_line_per_result(server: Running) -> None:
    feed(server, "shown", 3)
    done = CliRunner().invoke(app, ["watch", "shown", "--server", server.url], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == [0, 1, 2]


def test_a_server_that_does_not_pull_is_reported(server: Running) -> None:
    with pytest.raises(ApiError, match="allow-pull"):
        CliRunner().invoke(
            app, ["watch", "x", "--pull", "rtsp://127.0.0.1/x", "--server", server.url], catch_exceptions=False
        )


def test_only_pulled_streams_are_paused(twin: Twin, server: Running) -> None:
    with Client(server.url) as client:
        stream = client.create_stream().id
    for method in ("pause_stream", "resume_stream"):
        with pytest.raises(ApiError, match="isn't pulled"):
            twin.call(server.url, method, stream)


def test_how_the_server_reads_is_said_with_pull_only() -> None:
    for option in (["--as-stored"], ["--video", "1"], ["--interval", "3"]):
        ran = CliRunner().invoke(app, ["watch", "gate", *option])
        assert (ran.exit_code, "needs --pull" in ran.output) == (2, True)
