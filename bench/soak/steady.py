"""Streams that keep a server busy, while others come and go."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from bench.soak.rude import Rude
from bench.soak.samples import Probe, Sample
from keywarp.protocol import SUBPROTOCOL, Done, End, FrameHeader, Hello, Ready, ServerMessage, pack

SECONDS: Final = 60.0  # that any answer may take
SHARE: Final = 5  # in a run shorter than `SHARE` minutes, its first and last fifth are compared


@dataclass(frozen=True)
class Speed:
    """Results a second at the beginning and the end of a run, and frames in a second of the server's processor time."""

    first: float
    last: float
    first_of_processor: float
    last_of_processor: float

    @property
    def change(self) -> float:
        """How much faster the end was, as a share of the beginning."""
        return self.last / self.first - 1


class Busy:
    """A stream that always has as many frames in flight as its credit allows."""

    def __init__(self, url: str, stream: str, images: Sequence[bytes], over: threading.Event) -> None:
        """Prepare for the server at a URL. The stream ends with the event."""
        self._address = f"ws{url.removeprefix('http')}/v1/streams/{stream}/ws"
        self._images = images
        self._over = over
        self._thread = threading.Thread(target=self._run, name=stream)
        self.sent = self.responses = 0
        self.error: Exception | None = None

    def start(self) -> None:
        """Start the stream on a thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, and check that each frame has its response.

        Raises:
            Exception: The stream failed.
        """
        self._thread.join()
        if self.error:
            raise self.error
        if self.sent != self.responses:
            raise RuntimeError(f"{self._thread.name}: {self.sent} frames sent, {self.responses} responses received")

    def _run(self) -> None:
        try:
            self._stream()
        except Exception as error:  # noqa: BLE001 - `join` raises it
            self.error = error
            self._over.set()

    def _stream(self) -> None:
        options = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "compression": None, "max_size": None}
        with connect(self._address, **options) as socket:  # type: ignore[arg-type]
            socket.send(Hello().model_dump_json(exclude_none=True))
            ready = ServerMessage.validate_json(socket.recv(SECONDS))
            if not isinstance(ready, Ready):
                raise RuntimeError(f"the server refused a stream: {ready}")
            credit, ending = ready.credit, False
            while True:
                while self.sent < credit and not ending:
                    if self._over.is_set():
                        socket.send(End().model_dump_json())
                        ending = True
                    else:
                        image = self._images[self.sent % len(self._images)]
                        socket.send(pack(FrameHeader(id=self.sent), image))
                        self.sent += 1
                message = ServerMessage.validate_json(socket.recv(SECONDS))
                if isinstance(message, Done):
                    return
                credit = message.credit or credit
                self.responses += message.type in ("result", "dropped", "error")


def keep_busy(
    url: str, probe: Probe, rude: Rude, images: Sequence[bytes], *, streams: int, seconds: float, every: float
) -> list[Sample]:
    """Keep a server busy, drop one more stream rudely each second, and take samples.

    Args:
        url: The server's URL.
        probe: Reads its metrics.
        rude: Drops streams.
        images: The frames to send.
        streams: The number of busy streams.
        seconds: How long.
        every: Seconds from one sample to the next.
    """
    over = threading.Event()
    busy = [Busy(url, f"busy-{number}", images, over) for number in range(streams)]
    for stream in busy:
        stream.start()
    samples = [probe.read()]
    start = samples[0].at
    try:
        second = 0
        while (second := second + 1) < seconds and not over.wait(max(0.0, start + second - time.monotonic())):
            rude.open(1)
            if time.monotonic() >= samples[-1].at + every:
                samples.append(probe.read())
        samples.append(probe.read())
    finally:
        over.set()
        for stream in busy:
            stream.join()
    return samples


def speed(samples: Sequence[Sample]) -> Speed:
    """Compare the first minute with the last; in a short run, the first fifth with the last.

    Args:
        samples: At least 7 samples. The first isn't used, because streams begin then.
    """
    start, end = samples[1].at, samples[-1].at
    span = min(60.0, (end - start) / SHARE)
    beginning = max([2, *(n for n, sample in enumerate(samples) if sample.at <= start + span)])
    ending = min([len(samples) - 2, *(n for n, sample in enumerate(samples) if sample.at >= end - span)])

    def rates(one: Sample, other: Sample) -> tuple[float, float]:
        frames = other.frames - one.frames
        return frames / (other.at - one.at), frames / (other.processor - one.processor)

    (first, first_of_processor) = rates(samples[1], samples[beginning])
    (last, last_of_processor) = rates(samples[ending], samples[-1])
    return Speed(first, last, first_of_processor, last_of_processor)
