"""The motion vectors of a video's codec on their way to the engine."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import FrameResult, MotionVectors, StreamSession
from keywarp.protocol import FrameHeader, Hello, PacketCodec, StreamOptions
from keywarp.server.decode.decoders import open_decoder
from keywarp.server.decode.video import VideoOptions
from keywarp.server.security.quotas import UNLIMITED
from keywarp.server.streams.pipeline import Pipeline, ReceivedPayload
from keywarp.server.task_scope import task_scope
from tests.server.conftest import Running, running
from tests.server.media import HEIGHT, NO_DELAY, WIDTH, h264, jpeg, packets

Seen = list[tuple[Sequence[MotionVectors | None], FrameResult]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The vectors that the engine was given for each frame, and the result."""
    found: Seen = []
    process = StreamSession.process

    def recorded(session: StreamSession, frame: NDArray[np.uint8], *args: Any, **kwargs: Any) -> FrameResult:
        result = process(session, frame, *args, **kwargs)
        found.append((args[2] if len(args) > 2 else kwargs["vectors"], result))
        return result

    monkeypatch.setattr(StreamSession, "process", recorded)
    return found


@pytest.fixture
def codec_server(models: Path) -> Iterator[Running]:
    server = running(models, motion="codec")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp9"])
def test_each_frame_brings_its_vectors_if_its_decoder_exports_them(
    codec_server: Running, codec: PacketCodec, seen: Seen
) -> None:
    with codec_server.connect("v", Hello(codec=codec, interval=5)) as talk:
        talk.stream([*packets(codec, 5)])
    assert len(seen) == 5
    exported = codec == "h264"
    assert [[vectors is not None for vectors in given] for given, _ in seen] == [[exported]] * 5
    assert ("codec" in [result.motion for _, result in seen]) == exported
    assert ("dis-chained" in [result.motion for _, result in seen]) or exported


def test_images_have_no_vectors(codec_server: Running, seen: Seen) -> None:
    with codec_server.connect("v", Hello(interval=5)) as talk:
        talk.stream([(i, jpeg()) for i in range(3)])
    assert [(list(given), result.motion) for given, result in seen] == [
        ([None], None),
        ([None], "dis-chained"),
        ([None], "dis-chained"),
    ]


def test_no_vectors_are_exported_for_another_motion_source(server: Running, seen: Seen) -> None:
    with server.connect("v", Hello(codec="h264", interval=5)) as talk:
        talk.stream([*packets("h264", 3)])
    assert [list(given) for given, _ in seen] == [[]] * 3


def test_dropped_frames_leave_their_vectors_to_the_next_one(codec_server: Running, seen: Seen) -> None:
    units = [unit for _, unit in h264(6, NO_DELAY)]

    async def run() -> None:
        stream = codec_server.service.create_stream(StreamOptions(mode="latest", interval=10), None)
        decoder = open_decoder("h264", VideoOptions(WIDTH * HEIGHT, vectors=stream.engine.takes_vectors))
        pipeline = Pipeline(stream, decoder, UNLIMITED)

        async def payloads() -> AsyncIterator[ReceivedPayload]:
            release = codec_server.hold_device()
            for number, unit in enumerate(units):
                yield ReceivedPayload(FrameHeader(id=number), memoryview(unit), time.monotonic())
                while not number and stream.idle:  # noqa: ASYNC110 - nothing signals it
                    await asyncio.sleep(0.001)
            release()

        async with stream.connected(), task_scope() as tasks:
            tasks.create_task(pipeline.feed(payloads()))
            async for _ in pipeline.responses():
                pass
        await pipeline.close()
        await codec_server.service.streams.remove(stream, "the test is over")

    codec_server.run(run())
    assert [len(given) for given, _ in seen] == [1, 5]
    vectors, result = seen[1]
    assert [v.picture if v else None for v in vectors] == ["P"] * 5
    assert (result.key_age, result.motion) == (5, "codec")
