"""Producers that feed streams while a page watches them."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from numpy.typing import NDArray

from keywarp.client import Client
from tests.e2e.running import Server
from tests.server.media import GREEN, jpeg

FRAME_SECONDS = 0.05  # between two frames


@contextmanager
def feeding(server: Server, stream: str) -> Iterator[None]:
    """Feed a stream with the Python client, as a camera would."""
    over = threading.Event()

    def camera() -> Iterator[NDArray[np.uint8]]:
        for number in itertools.count():
            if over.wait(FRAME_SECONDS):
                return
            yield np.full((64, 128, 3), (GREEN, (number % 256, 20, 20))[number % 2], np.uint8)

    def feed() -> None:
        with Client(server.url) as client, client.stream(camera(), stream_id=stream, interval=5) as results:
            for _ in results:
                pass

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def ip_camera() -> Iterator[str]:
    """Run an IP camera that sends MJPEG over HTTP, and give its address."""
    over = threading.Event()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            picture = jpeg(GREEN)
            part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(picture), picture)
            try:
                while not over.wait(FRAME_SECONDS):
                    self.wfile.write(part)
            except ConnectionError:
                pass  # The server under test has stopped pulling.

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as camera:
        thread = threading.Thread(target=camera.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{camera.server_port}/video"
        finally:
            over.set()
            camera.shutdown()
            thread.join()
