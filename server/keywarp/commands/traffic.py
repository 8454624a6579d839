"""What benchmarks send, and how: streams over plain WebSockets, from payloads that are made beforehand."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from keywarp.cli.errors import CommandError
from keywarp.client.images import encode_jpeg
from keywarp.client.payloads import open_payloads
from keywarp.client.sources import open_source
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
from keywarp.server.decode.frames import Picture
from keywarp.server.streams.results import encode_result

PIXELS = 4096 * 4096  # of a frame at most


@dataclass
class Outcome:
    """What became of one stream's frames."""

    seconds: float = 0.0  # from the first frame to `done`
    results: Counter[str] = field(default_factory=Counter)  # by kind
    others: Counter[str] = field(default_factory=Counter)  # errors and dropped frames
    latency: dict[int, float] = field(default_factory=dict)  # by id: seconds from when a frame was due to its result

    @property
    def frames(self) -> int:
        """Results."""
        return self.results.total()


def make_payloads(video: Path, codec: str, frames: int, quality: int = 90) -> list[bytes]:
    """The first frames of a video as JPEGs, or its packets.

    Raises:
        SourceError: It can't be read, or isn't H.264 where that is wanted.
    """
    if codec == "h264":
        return [payload.data for payload, _ in zip(open_payloads(video, "h264"), range(frames), strict=False)]
    with open_source(video) as source:
        return [encode_jpeg(frame.image, quality) for frame, _ in zip(source, range(frames), strict=False)]


def in_process(
    session: StreamSession,
    classes: Sequence[ManifestClass],
    payloads: Sequence[bytes],
    codec: str,
    fps: float | None = None,
) -> Outcome:
    """Decode, process and encode one frame after the other, as `keywarp run` does, without a server.

    With `fps` a frame isn't begun before it is due, and latency counts from then: frames behind a slow one wait.
    """
    outcome = Outcome()
    decoder = open_decoder("h264" if codec == "h264" else "image", PIXELS)
    started = time.perf_counter()

    def process(items: Iterator[object]) -> None:
        for item in items:
            assert isinstance(item, Picture)
            found = session.process(item.pixels)
            result = encode_result(found, classes, stream="bench", decode=item.decode, queue=0.0, id=item.id)
            result.model_dump_json(exclude_none=True)
            outcome.results[result.kind] += 1
            if isinstance(item.id, int):
                outcome.latency[item.id] = time.perf_counter() - begun

    for number, payload in enumerate(payloads):
        begun = time.perf_counter()
        if fps is not None:
            due = started + number / fps
            time.sleep(max(0.0, due - begun))
            begun = due
        process(decoder.decode(FrameHeader(id=number), memoryview(payload)))
    process(decoder.finish())
    outcome.seconds = time.perf_counter() - started
    decoder.close()
    return outcome


@contextmanager
def open_stream(server: str, stream: str, hello: Hello) -> Iterator[tuple[ClientConnection, int]]:
    """Begin a stream; gives the connection and the first credit.

    Raises:
        CommandError: The server doesn't take it.
    """
    address = f"ws{server.removeprefix('http')}/v1/streams/{stream}/ws"
    with connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=None) as socket:
        socket.send(hello.model_dump_json(exclude_none=True))
        ready = ServerMessage.validate_json(socket.recv())
        if not isinstance(ready, Ready):
            raise CommandError(f"the server doesn't take the stream: {ready!r}")
        yield socket, ready.credit


def closed_loop(server: str, stream: str, hello: Hello, payloads: Sequence[bytes]) -> Outcome:
    """Send as fast as the credit allows."""
    outcome = Outcome()
    with open_stream(server, stream, hello) as (socket, credit):
        started = time.perf_counter()
        sent = 0
        while True:
            while sent < len(payloads) and sent < credit:
                socket.send(pack(FrameHeader(id=sent), payloads[sent]))
                sent += 1
                if sent == len(payloads):
                    socket.send(End().model_dump_json())
            said = ServerMessage.validate_json(socket.recv())
            if isinstance(said, Done):
                outcome.seconds = time.perf_counter() - started
                return outcome
            credit = said.credit or credit
            _count(outcome, said)


def open_loop(server: str, stream: str, hello: Hello, payloads: Sequence[bytes], fps: float, seconds: float) -> Outcome:
    """Send as a camera does: a frame when it is due, whatever the server does. The clip is repeated.

    Latency counts from when the frame was due, so a sender that is held up doesn't hide it.
    """
    outcome = Outcome()
    due: dict[int, float] = {}
    with open_stream(server, stream, hello) as (socket, credit):
        allowed = [credit]
        started = time.perf_counter()

        def hear() -> None:
            while True:
                said = ServerMessage.validate_json(socket.recv())
                now = time.perf_counter()
                if isinstance(said, Done):
                    outcome.seconds = now - started
                    return
                allowed[0] = said.credit or allowed[0]
                _count(outcome, said)
                if isinstance(said, Result) and isinstance(said.id, int):
                    outcome.latency[said.id] = now - due.pop(said.id)

        hearing = threading.Thread(target=hear)
        hearing.start()
        sent = 0
        for number in range(round(fps * seconds)):
            moment = started + number / fps
            time.sleep(max(0.0, moment - time.perf_counter()))
            if sent >= allowed[0]:
                outcome.others["unsent"] += 1  # the camera's own buffer is full
                continue
            due[number] = moment
            socket.send(pack(FrameHeader(id=number), payloads[number % len(payloads)]))
            sent += 1
        socket.send(End().model_dump_json())
        hearing.join()
    return outcome


def _count(outcome: Outcome, said: object) -> None:
    match said:
        case Result():
            outcome.results[said.kind] += 1
        case Error() | Dropped():
            outcome.others[said.type] += 1
