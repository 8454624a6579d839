"""Request bodies that are too large, that stall, or whose end is ambiguous."""

import resource
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.server.conftest import PATIENCE, Running, Starter, eventually
from tests.server.faults.neighbour import undisturbed
from tests.server.faults.test_connections import address
from tests.server.media import jpeg

MEGABYTE = 2**20


def endless(count: int) -> Iterator[bytes]:
    yield b'{"id": "'
    for _ in range(count):
        yield MEGABYTE * b"x"
    yield b'"}'


@pytest.mark.parametrize("path", ["/v1/streams", "/v1/streams/neighbour/rules", "/v1/reload"])
def test_json_of_any_size_is_not_read(server: Running, path: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with undisturbed(server) as neighbour:
        method = "PUT" if path.endswith("rules") else "POST"
        try:
            refused = server.http.request(method, path, content=endless(200))
        except (httpx.WriteError, httpx.ReadError):
            pass  # the server has closed the connection before all of it was sent
        else:
            assert refused.status_code == 413
        neighbour.receives(3)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 50
    declared = server.http.request(method, path, content=(2 * MEGABYTE) * b" ")
    assert (declared.status_code, "larger" in declared.json()["detail"]) == (413, True)


@pytest.mark.parametrize("path", ["/v1/streams", "/v1/streams/stalls/frames", "/v2/models/tiny/infer"])
def test_a_body_that_stalls_is_given_up(start: Starter, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("keywarp.server.routes.request_body.STALL", 0.3)
    server = start()
    server.http.post("/v1/streams", json={"id": "stalls"})
    with undisturbed(server) as neighbour, socket.create_connection(address(server.url), PATIENCE) as stalled:
        stalled.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n".encode())
        stalled.sendall(1000 * b"x")
        assert stalled.recv(100).startswith(b"HTTP/1.1 408")
        neighbour.receives(3)
    assert server.frame("stalls").is_success


def test_a_body_that_drips_is_given_up(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keywarp.server.routes.request_body.STALL", 0.5)
    server = start()
    server.http.post("/v1/streams", json={"id": "drips"})
    with socket.create_connection(address(server.url), 0.05) as slow:
        slow.sendall(b"POST /v1/streams/drips/frames HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")

        def refused() -> bool:
            try:
                slow.sendall(b"x")
                return slow.recv(100).startswith(b"HTTP/1.1 408")
            except TimeoutError:
                return False

        eventually(refused)


def test_a_video_whose_upload_stalls_expires(start: Starter) -> None:
    server = start(idle_timeout=0.5)
    with undisturbed(server) as neighbour, socket.create_connection(address(server.url), PATIENCE) as stalled:
        stalled.sendall(b"POST /v1/videos?codec=mp4 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        stalled.sendall(jpeg())
        assert stalled.recv(100).split()[1] in (b"410", b"422")
        neighbour.receives(1)
    eventually(lambda: len(server.service.streams) == 0)


def test_a_request_whose_end_is_ambiguous_is_refused(server: Running) -> None:
    """By the length, the rest would be another request (request smuggling)."""
    with socket.create_connection(address(server.url), PATIENCE) as opened:
        opened.sendall(
            b"POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\n\r\n"
        )
        response = b""
        while piece := opened.recv(4096):
            response += piece
    assert response.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in response.lower()
