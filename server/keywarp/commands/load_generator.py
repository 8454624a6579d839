"""Load a server or an engine for benchmarks, with streams of payloads that were made beforehand."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from keywarp.cli.errors import CommandError
from keywarp.client import open_source
from keywarp.client.images import encode_jpeg
from keywarp.client.payloads import open_payloads
from keywarp.engines import StreamSession
from keywarp.engines.manifest import ManifestClass
from keywarp.protocol import (
    SUBPROTOCOL,
    Done,
    Dropped,
    End,
    Error,
    FrameHeader,
    Hello,
    Ready,
    Result,
    ServerMessage,
    pack,
)
from keywarp.server.decode.decoders import open_decoder
from keywarp.server.decode.frames import DecodedFrame
from keywarp.server.decode.video import VideoOptions
from keywarp.server.streams.results import encode_result
from keywarp.videos import Note

BenchCodec = Literal["image", "h264"]
MAX_PIXELS = 4096 * 4096  # of one frame


@dataclass
class StreamMeasurement:
    """The measurements of one stream."""

    seconds: float = 0.0  # from the first payload to the last response
    results: Counter[str] = field(default_factory=Counter)  # number of results, by kind of frame
    failures: Counter[str] = field(default_factory=Counter)  # number of frames, by failure: error, dropped, unsent
    latencies: dict[int, float] = field(default_factory=dict)  # seconds from when a frame was due to its result, by id
    key_ages: list[float] = field(default_factory=list)  # seconds since the key frame, one for each result

    @property
    def frames(self) -> int:
        """The number of frames with a result."""
        return self.results.total()

    @property
    def fps(self) -> float:
        """Results per second."""
        return self.frames / self.seconds

    def count(self, response: object) -> None:
        """Count a frame's response."""
        match response:
            case Result():
                self.results[response.kind] += 1
                if response.key_age_seconds is not None:
                    self.key_ages.append(response.key_age_seconds)
            case Error() | Dropped():
                self.failures[response.type] += 1


def make_payloads(video: Path, codec: BenchCodec, frames: int, quality: int = 90) -> list[bytes]:
    """Make payloads from the first frames of a video, as they are stored.

    Args:
        video: The video file.
        codec: `image` makes a JPEG of each frame; `h264` uses the file's packets.
        frames: The largest number of payloads.
        quality: The JPEGs' quality, 1 to 100.

    Raises:
        SourceError: If the video can't be read, or isn't H.264 and `codec` is.
    """
    if codec == "h264":
        return [payload.data for payload, _ in zip(open_payloads(video, "h264"), range(frames), strict=False)]
    with open_source(video, upright=False) as source:
        return [encode_jpeg(frame.image, quality) for frame, _ in zip(source, range(frames), strict=False)]


def run_in_process(
    session: StreamSession,
    classes: Sequence[ManifestClass],
    payloads: Sequence[bytes],
    codec: BenchCodec,
    fps: float | None = None,
) -> StreamMeasurement:
    """Decode, process and encode one frame after the other in this thread, without a server.

    Args:
        session: The stream's session.
        classes: The model's classes.
        payloads: One payload per frame.
        codec: The codec of the payloads.
        fps: The rate at which frames are due, or None to process them as fast as possible. No frame is processed
            before it is due. Its latency counts from then, so it includes the wait for a slow earlier frame.
    """
    measurement = StreamMeasurement()
    dense = session.engine.bundle.manifest.dense
    decoder = open_decoder(codec, VideoOptions(MAX_PIXELS, vectors=session.engine.takes_vectors))
    started = time.perf_counter()
    due = started

    def process(decoded: Iterator[object]) -> None:
        for frame in decoded:
            if isinstance(frame, Note):
                continue
            assert isinstance(frame, DecodedFrame)
            found = session.process(frame.pixels, vectors=(frame.vectors,))
            result = encode_result(
                found, classes, stream="bench", decode=frame.decode, waited=0.0, id=frame.id, dense=dense
            )
            result.model_dump_json(exclude_none=True)
            measurement.count(result)
            if isinstance(frame.id, int):
                measurement.latencies[frame.id] = time.perf_counter() - due

    for number, payload in enumerate(payloads):
        due = time.perf_counter()
        if fps is not None:
            now, due = due, started + number / fps
            time.sleep(max(0.0, due - now))
        process(decoder.decode(FrameHeader(id=number), memoryview(payload)))
    process(decoder.finish())
    measurement.seconds = time.perf_counter() - started
    decoder.close()
    return measurement


def closed_loop(server: str, stream: str, hello: Hello, payloads: Sequence[bytes]) -> StreamMeasurement:
    """Send payloads as fast as the credit allows, and measure.

    Args:
        server: The server's URL.
        stream: The stream's id.
        hello: The stream's model, codec and options.
        payloads: The payloads to send.

    Raises:
        CommandError: If the server can't be reached, or refuses the stream.
    """
    measurement = StreamMeasurement()
    with _open_stream(server, stream, hello) as (socket, credit):
        started = time.perf_counter()
        sent = 0
        while True:
            while sent < min(len(payloads), credit):
                socket.send(pack(FrameHeader(id=sent), payloads[sent]))
                sent += 1
                if sent == len(payloads):
                    socket.send(End().model_dump_json())
            message = ServerMessage.validate_json(socket.recv())
            if isinstance(message, Done):
                measurement.seconds = time.perf_counter() - started
                return measurement
            credit = message.credit or credit
            measurement.count(message)


def open_loop(
    server: str, stream: str, hello: Hello, payloads: Sequence[bytes], fps: float, seconds: float
) -> StreamMeasurement:
    """Send payloads as a camera does, each when it is due, and measure.

    A frame's latency counts from when it was due, so it includes a delay of the sender. Its timestamp is the time at
    which it was due. A frame that is due without credit is counted as `unsent`.

    Args:
        server: The server's URL.
        stream: The stream's id.
        hello: The stream's model, codec and options.
        payloads: The payloads to send, repeated as long as needed.
        fps: Frames per second.
        seconds: How long to send.

    Raises:
        CommandError: If the server can't be reached, or refuses the stream.
    """
    measurement = StreamMeasurement()
    due: dict[int, float] = {}  # by id
    with _open_stream(server, stream, hello) as (socket, credit):
        started = time.perf_counter()

        def receive() -> None:
            nonlocal credit
            while True:
                message = ServerMessage.validate_json(socket.recv())
                now = time.perf_counter()
                if isinstance(message, Done):
                    measurement.seconds = now - started
                    return
                credit = message.credit or credit
                measurement.count(message)
                if isinstance(message, Result) and isinstance(message.id, int):
                    measurement.latencies[message.id] = now - due.pop(message.id)

        receiver = threading.Thread(target=receive)
        receiver.start()
        sent = 0
        for number in range(round(fps * seconds)):
            due_at = started + number / fps
            time.sleep(max(0.0, due_at - time.perf_counter()))
            if sent >= credit:
                measurement.failures["unsent"] += 1
                continue
            due[number] = due_at
            socket.send(pack(FrameHeader(id=number, timestamp=number / fps), payloads[number % len(payloads)]))
            sent += 1
        socket.send(End().model_dump_json())
        receiver.join()
    return measurement


@contextmanager
def _open_stream(server: str, stream: str, hello: Hello) -> Iterator[tuple[ClientConnection, int]]:
    """Open a stream, and yield its connection and first credit."""
    address = f"ws{server.removeprefix('http')}/v1/streams/{stream}/ws"
    try:
        connection = connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=None)
    except (OSError, WebSocketException) as error:
        raise CommandError(f"can't connect to {server!r}: {error}") from error
    with connection as socket:
        socket.send(hello.model_dump_json(exclude_none=True))
        response = ServerMessage.validate_json(socket.recv())
        if not isinstance(response, Ready):
            reason = response.problem.detail if isinstance(response, Error) else response.type
            raise CommandError(f"the server refused the stream: {reason}")
        yield socket, response.credit
