"""Connections that cost the server files, memory or time by what they don't send or read."""

import logging
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from keywarp.protocol import Hello
from keywarp.server import connections
from tests.server.conftest import PATIENCE, Running, Starter, eventually
from tests.server.faults.neighbour import undisturbed

FILES = 64  # that the server may open
CONTINUATION, TEXT, BINARY, PING = 0x0, 0x1, 0x2, 0x9


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def frame(opcode: int, payload: bytes, *, final: bool) -> bytes:
    """Make a WebSocket frame (RFC 6455, section 5.2), masked with zeros."""
    return struct.pack("!BB", 0x80 * final | opcode, 0x80 | len(payload)) + bytes(4) + payload


@contextmanager
def raw(server: Running, stream: str = "attacker", receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """Open a WebSocket without a library, which would read and answer by itself."""
    with socket.socket() as opened:
        if receive_buffer:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        opened.settimeout(PATIENCE)
        opened.connect(address(server.url))
        opened.sendall(
            f"GET /v1/streams/{stream}/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Protocol: keywarp.v1\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += opened.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        yield opened


def send_until_closed(
    opened: socket.socket, data: bytes, seconds: float = PATIENCE, enough: Callable[[], bool] = lambda: False
) -> bool:
    """Send data again and again, until it is enough. Return whether the server closed the connection."""
    opened.settimeout(0.1)
    deadline, rest = time.monotonic() + seconds, b""
    while time.monotonic() < deadline and not enough():
        try:
            rest = rest or data
            rest = rest[opened.send(rest) :]
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


@contextmanager
def few_files(models: Path, log: Path) -> Iterator[str]:
    """Run a server as a process that may open few files."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))

    command = [sys.executable, "-m", "keywarp.cli", "serve", "--port", "0", "--backend", "onnxruntime"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*command, "--models", str(models)],
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            preexec_fn=limit,
        ) as running,
    ):
        try:
            assert running.stdout
            yield running.stdout.readline().split()[-1]
        finally:
            running.kill()


def test_silent_connections_leave_a_server_with_few_files_reachable(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with few_files(models, log) as url, ExitStack() as silent:
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            eventually(lambda: client.get("/readyz").is_success)
        for _ in range(3 * FILES):
            silent.enter_context(socket.create_connection(address(url)))
        for _ in range(5):
            assert httpx.get(f"{url}/readyz", timeout=PATIENCE).is_success
        assert httpx.post(f"{url}/v1/streams", json={}, timeout=PATIENCE).is_success
    assert log.stat().st_size < 4096, "the log tells of each connection"


def test_silent_connections_disturb_no_stream_at_the_limit(start: Starter, caplog: pytest.LogCaptureFixture) -> None:
    server = start(max_connections=10)
    with undisturbed(server) as neighbour, ExitStack() as silent:
        for _ in range(40):
            silent.enter_context(socket.create_connection(address(server.url)))
        neighbour.receives(10)
        with server.connect("late", Hello()):
            pass
    assert "there are 10 connections already" in caplog.text


def test_a_request_that_never_ends_is_given_up(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.5)
    server = start()
    with socket.create_connection(address(server.url), PATIENCE) as silent, ExitStack() as others:
        slow = others.enter_context(socket.create_connection(address(server.url), PATIENCE))
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
        second = others.enter_context(socket.create_connection(address(server.url), PATIENCE))
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HT")
        assert second.recv(100).startswith(b"HTTP/1.1 200")
        for opened in (silent, slow, second):
            assert ends(opened)


def ends(opened: socket.socket) -> bool:
    """Wait until the server has closed a connection."""
    try:
        while opened.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_fragments_of_a_byte_disturb_no_other_stream(server: Running) -> None:
    """A whole buffer of the smallest fragments would take the event loop half a second."""
    text = frame(TEXT, b"", final=False) + frame(CONTINUATION, b"", final=True)  # each is a message without content
    with undisturbed(server) as neighbour:
        for _ in range(3):
            with raw(server) as attacker:
                send_until_closed(attacker, 50_000 * text, 2)
        neighbour.receives(5)


def test_pings_disturb_no_other_stream(server: Running) -> None:
    with undisturbed(server) as neighbour, raw(server) as attacker:
        attacker.settimeout(0.01)
        before = len(neighbour.latencies)
        while len(neighbour.latencies) < before + 20:
            try:
                attacker.sendall(10_000 * frame(PING, b"", final=True))
            except TimeoutError:
                break  # the rest would begin in the middle of a frame
        neighbour.receives(20)


def test_chunks_of_a_byte_disturb_no_other_stream(server: Running) -> None:
    with undisturbed(server) as neighbour, socket.create_connection(address(server.url)) as attacker:
        attacker.sendall(b"POST /v1/videos?codec=mp4 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        send_until_closed(attacker, 50_000 * b"1\r\nx\r\n", 3)
        neighbour.receives(5)


def test_pongs_to_a_client_that_does_not_read_are_not_kept(server: Running) -> None:
    pings = 2000 * frame(PING, 125 * b"p", final=True)
    with undisturbed(server) as neighbour, raw(server, receive_buffer=4096) as attacker:
        send_until_closed(attacker, pings, 3)
        buffered = [one.transport.get_write_buffer_size() for one in server.server.connections.connections]
        assert max(buffered) < 2**20
        neighbour.receives(1)


def test_closing_ends_though_the_client_does_not_read(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CLOSE_TIMEOUT", 0.5)
    server = start()
    open_ = server.server.connections.connections
    with undisturbed(server) as neighbour, raw(server, receive_buffer=4096) as attacker:

        def unread() -> list[Any]:
            return [one for one in [*open_] if one.transport.get_write_buffer_size()]

        assert not send_until_closed(
            attacker, 2000 * frame(PING, 125 * b"p", final=True), enough=lambda: bool(unread())
        )
        stuck = unread()[0]
        server.server.servers[0].get_loop().call_soon_threadsafe(stuck.transport.close)
        eventually(lambda: stuck not in open_)
        neighbour.receives(1)


def test_a_refused_websocket_is_no_error_of_the_server(start: Starter, caplog: pytest.LogCaptureFixture) -> None:
    server = start()
    with caplog.at_level(logging.ERROR):
        with pytest.raises(InvalidStatus), server.connect("s", subprotocols=None):
            pass
        eventually(lambda: not server.tasks())
    assert not caplog.records


def test_text_that_is_not_utf8_ends_its_connection_without_a_traceback(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with raw(server) as opened:
        opened.sendall(frame(TEXT, b"\xff\xfe", final=True))
        received = b""
        while piece := opened.recv(100):
            received += piece
    assert b"\x03\xef" in received  # 1007
    assert "Traceback" not in caplog.text
    assert "isn't UTF-8" in caplog.text or not caplog.records


def test_a_message_in_too_many_fragments_ends_its_connection(server: Running) -> None:
    with raw(server) as opened:
        opened.sendall(frame(BINARY, b"", final=False))
        assert send_until_closed(opened, 1000 * frame(CONTINUATION, b"", final=False), 5)


def test_the_limit_of_files_is_raised_to_what_the_system_allows() -> None:
    code = (
        "import resource; from keywarp.server.connections import raise_file_limit, room_for_connections;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, 512)); raise_file_limit();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], room_for_connections(1024))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=dict(os.environ)).stdout
    soft, room = map(int, printed.split())
    assert soft == 512
    assert 400 < room < 512
