"""A web server with the sources that tests pull: files, playlists' segments, cameras, and servers that misbehave."""

import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, NamedTuple

from tests.server.media import GREEN, jpeg

Responder = Callable[["SourceHandler"], None]


class ReceivedRequest(NamedTuple):
    """A request to the web server."""

    path: str
    headers: dict[str, str]
    at: float  # monotonic seconds


class SourceHandler(BaseHTTPRequestHandler):
    """Responds to a path as the test says, and records the request."""

    protocol_version = "HTTP/1.1"
    server: "SourceServer"

    def do_GET(self) -> None:
        self.server.received.append(ReceivedRequest(self.path, dict(self.headers), time.monotonic()))
        self.server.responders.get(self.path, missing)(self)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class SourceServer(ThreadingHTTPServer):
    """A web server that serves what a test puts there."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("", 0), SourceHandler)
        self.responders: dict[str, Responder] = {}
        self.received: list[ReceivedRequest] = []
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.over = threading.Event()

    def requests(self, path: str) -> list[ReceivedRequest]:
        """Return the requests for a path."""
        return [request for request in self.received if request.path == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the other end has gone


def missing(handler: SourceHandler) -> None:
    handler.send_error(404)


def file(data: bytes, *, ranges: bool = True, cut: int | None = None) -> Responder:
    """Respond with a file, or with its first `cut` bytes before the connection breaks."""

    def respond(handler: SourceHandler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")) if ranges else None
        start = int(asked[1]) if asked else 0
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        if ranges:
            handler.send_header("Accept-Ranges", "bytes")
        handler.end_headers()
        handler.wfile.write(data[start:cut])
        handler.close_connection = cut is not None

    return respond


def redirect(to: str) -> Responder:
    def respond(handler: SourceHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return respond


def camera(frames: int | None, until: threading.Event | None = None) -> Responder:
    """Respond as an IP camera does, with one JPEG after the other, and then hang up.

    Args:
        frames: The number of frames, or None for 20 a second until the event.
        until: The event to wait for before hanging up.
    """

    def respond(handler: SourceHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        handler.end_headers()
        for _ in count() if frames is None else range(frames):
            part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg(GREEN))
            handler.wfile.write(part + jpeg(GREEN) + b"\r\n")
            if frames is None and until and until.wait(0.05):
                break
        if until:
            until.wait(60)
        handler.close_connection = True

    return respond


def silent(until: threading.Event) -> Responder:
    """Respond without a body, and hang up after an event."""

    def respond(handler: SourceHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        until.wait(60)
        handler.close_connection = True

    return respond
