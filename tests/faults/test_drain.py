"""A server process that gets SIGTERM while several clients stream: each frame that it took has its response."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from keywarp.client.images import encode_jpeg
from keywarp.protocol import SUBPROTOCOL, CloseCode, Error, FrameHeader, Hello, Mode, Ready, ServerMessage, pack
from tests.e2e.running import serving
from tests.e2e.test_cameras import PATIENCE
from tests.tiny_bundle import tiny_bundle

STREAMS = 6
BEFORE = 40  # responses of each stream before the signal


@dataclass
class Sender:
    """A client that always has as many frames on their way as its credit allows, until the server closes."""

    mode: Mode
    warm: threading.Barrier
    sent: int = 0
    credit: int = 0
    ids: list[int] = field(default_factory=list)  # of the responses
    fatal: Error | None = None
    close_code: int | None = None

    def run(self, url: str, stream: str, image: bytes) -> None:
        """Stream until the server closes."""
        address = f"ws{url.removeprefix('http')}/v1/streams/{stream}/ws"
        with connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None) as socket:
            socket.send(Hello(mode=self.mode).model_dump_json())
            try:
                while True:
                    message = ServerMessage.validate_json(socket.recv(PATIENCE))
                    match message:
                        case Error(fatal=True):
                            self.fatal = message
                        case Ready():
                            pass
                        case _ if isinstance(found := getattr(message, "id", None), int):
                            self.ids.append(found)
                            if len(self.ids) == BEFORE:
                                self.warm.wait(PATIENCE)
                    self.credit = getattr(message, "credit", None) or self.credit
                    while self.sent < self.credit:
                        socket.send(pack(FrameHeader(id=self.sent), image))
                        self.sent += 1
            except ConnectionClosed as closed:
                self.close_code = closed.rcvd.code if closed.rcvd else None


@pytest.mark.parametrize("mode", ["lossless", "latest"])
def test_a_server_that_stops_under_load_answers_each_frame_that_it_took(tmp_path: Path, mode: Mode) -> None:
    tiny_bundle(tmp_path / "models" / "tiny")
    image = encode_jpeg(np.zeros((48, 64, 3), np.uint8), 90)
    warm = threading.Barrier(STREAMS + 1)
    senders = [Sender(mode, warm) for _ in range(STREAMS)]
    with serving("--backend", "onnxruntime", models=tmp_path / "models") as server, ThreadPoolExecutor(STREAMS) as pool:
        runs = [pool.submit(sender.run, server.url, f"drained-{n}", image) for n, sender in enumerate(senders)]
        warm.wait(PATIENCE)
        server.process.send_signal(signal.SIGTERM)
        for run in runs:
            run.result(PATIENCE)
        assert server.process.wait(PATIENCE) == 0
    for sender in senders:
        assert sender.ids == sorted(set(sender.ids)), "twice, or in another order"
        assert sender.ids == list(range(len(sender.ids))), "a frame before the last response has none"
        assert len(sender.ids) > BEFORE
        assert sender.fatal is not None
        assert sender.fatal.problem.status == 503
        assert sender.close_code == CloseCode.SERVICE_RESTART
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/healthz")


def test_single_frames_that_are_on_their_way_when_the_server_stops_have_their_results(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "models" / "tiny")
    image = encode_jpeg(np.zeros((48, 64, 3), np.uint8), 90)
    warm = threading.Barrier(STREAMS + 1)

    def send(url: str, stream: str) -> tuple[list[int], str | int]:
        """Send one frame after another; return the frames of the results, and what the end was."""
        frames: list[int] = []
        with httpx.Client(base_url=url, timeout=PATIENCE) as http:
            http.put(f"/v1/streams/{stream}", json={}).raise_for_status()
            while True:
                try:
                    response = http.post(f"/v1/streams/{stream}/frames", content=image)
                except (httpx.ConnectError, httpx.ReadError):
                    # The next frame wasn't accepted. It is a read error if it was on its way to an idle connection that
                    # the server closed: then the kernel throws it away, and the server never read it.
                    return frames, "refused"
                if response.is_error:
                    return frames, response.status_code
                frames.append(response.json()["frame"])
                if len(frames) == BEFORE:
                    warm.wait(PATIENCE)

    with serving("--backend", "onnxruntime", models=tmp_path / "models") as server, ThreadPoolExecutor(STREAMS) as pool:
        runs = [pool.submit(send, server.url, f"single-{n}") for n in range(STREAMS)]
        warm.wait(PATIENCE)
        server.process.send_signal(signal.SIGTERM)
        for run in runs:
            frames, end = run.result(PATIENCE)
            assert frames == list(range(len(frames)))
            assert end in (503, "refused")
        assert server.process.wait(PATIENCE) == 0
