"""The pipeline between a producer and its stream, on a real server's device, without a connection.

The producers here are generators. One that is resumed knows that its payloads so far were decoded.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from keywarp.protocol import Done, Dropped, Error, FrameHeader, Result, StreamOptions
from keywarp.server.decode.frames import Decoded
from keywarp.server.decode.images import ImageDecoder
from keywarp.server.errors import BadVideoError
from keywarp.server.security.quotas import UNLIMITED, Limits, Quota
from keywarp.server.streams.pipeline import Pipeline, ReceivedPayload
from keywarp.server.streams.stream import Stream
from keywarp.server.streams.subscribers import FrameResponse
from keywarp.server.task_scope import task_scope
from tests.server.conftest import PATIENCE, Running
from tests.server.media import HEIGHT, WIDTH, jpeg

Payloads = AsyncIterator[ReceivedPayload]
HELD = 0.05  # seconds


def payload(number: int, data: bytes | None = None) -> ReceivedPayload:
    return ReceivedPayload(FrameHeader(id=number), memoryview(jpeg() if data is None else data), time.monotonic())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not condition():  # noqa: ASYNC110 - nothing signals it
        await asyncio.sleep(0.001)


async def until_busy(stream: Stream) -> None:
    """Wait until a frame of the stream is on the device or queued for it."""
    await until(lambda: stream.idle == 0)


async def feed(stream: Stream, payloads: Payloads, quota: Quota) -> tuple[list[FrameResponse], Pipeline]:
    """Run a pipeline for the producer of a stream."""
    pipeline = Pipeline(stream, ImageDecoder(WIDTH * HEIGHT), quota)
    async with task_scope() as tasks:
        tasks.create_task(pipeline.feed(payloads))
        responses = [response async for response in pipeline.responses() if response]
    await pipeline.close()
    return responses, pipeline


async def process(stream: Stream, payloads: Payloads, quota: Quota = UNLIMITED) -> tuple[list[FrameResponse], Pipeline]:
    """Run a pipeline as a connection does."""
    async with stream.connected():
        return await feed(stream, payloads, quota)


def run(
    server: Running, options: StreamOptions, payloads: Callable[[Stream], Payloads], quota: Quota = UNLIMITED
) -> tuple[list[FrameResponse], list[FrameResponse], Pipeline]:
    """Process payloads in a stream of their own.

    Returns:
        The producer's responses, those of a subscriber, and the pipeline after its end.
    """

    async def run() -> tuple[list[FrameResponse], list[FrameResponse], Pipeline]:
        stream = server.service.create_stream(options, None)
        with stream.subscribers.subscribe() as subscription:
            responses, pipeline = await process(stream, payloads(stream), quota)
            await server.service.streams.remove(stream, "the test is over")
            _, published = await subscription.take()
        return responses, published, pipeline

    return server.run(run())


def test_lossless_gives_a_response_to_each_frame_in_order(server: Running) -> None:
    async def payloads(_: Stream) -> Payloads:
        for number in range(12):
            yield payload(number, b"no image" if number == 5 else None)

    responses, published, pipeline = run(server, StreamOptions(interval=4), payloads)
    assert [(response.frame, response.id) for response in responses] == [(i, i) for i in range(12)]
    assert isinstance(responses[5], Error)
    reasons = {response.frame: response.reason for response in responses if isinstance(response, Result)}
    assert {frame: reason for frame, reason in reasons.items() if reason} == {
        0: "start",
        4: "interval",
        6: "gap",
        10: "interval",
    }
    assert published == responses
    assert pipeline.consumed == 12
    assert pipeline.done == Done(frames=11, key_frames=4, errors=1, dropped=0)


def test_latest_drops_all_but_the_newest_of_the_frames_that_wait(server: Running) -> None:
    async def payloads(stream: Stream) -> Payloads:
        release = server.hold_device()
        yield payload(0)
        await until_busy(stream)
        for number in range(1, 6):
            yield payload(number)
        await asyncio.sleep(HELD)  # the device is busy for longer
        release()

    responses, published, pipeline = run(server, StreamOptions(mode="latest", interval=10), payloads)
    assert [(response.type, response.frame, response.id) for response in responses] == [
        ("result", 0, 0),
        *[("dropped", number, number) for number in range(1, 5)],
        ("result", 5, 5),
    ]
    assert {response.reason for response in responses if isinstance(response, Dropped)} == {"newer"}
    last = responses[-1]
    assert isinstance(last, Result)
    assert (last.kind, last.key_age) == ("propagated", 5)  # no gap, because nothing is lost that the key frame needs
    assert last.timings.queue >= HELD
    assert published == responses
    assert pipeline.consumed == 6
    assert pipeline.done == Done(frames=2, key_frames=1, errors=0, dropped=4)


def test_a_frame_that_cannot_be_decoded_is_not_superseded(server: Running) -> None:
    async def payloads(stream: Stream) -> Payloads:
        release = server.hold_device()
        yield payload(0)
        await until_busy(stream)
        for number in range(1, 6):
            yield payload(number, b"no image" if number == 3 else None)
        release()

    responses, published, pipeline = run(server, StreamOptions(mode="latest", interval=10), payloads)
    types = ["result", "dropped", "dropped", "error", "dropped", "result"]
    assert [(response.frame, response.type) for response in responses] == [*enumerate(types)]
    assert all(response.stream and response.time and response.time.tzinfo for response in responses)
    last = responses[-1]
    assert isinstance(last, Result)
    assert last.reason == "gap"
    assert published == responses
    assert pipeline.done == Done(frames=2, key_frames=2, errors=1, dropped=3)


def test_dropped_frames_do_not_use_up_the_interval(server: Running) -> None:
    """Three of five frames are dropped, so that every fifth frame that is processed is the 12th or 13th of all."""

    async def payloads(stream: Stream) -> Payloads:
        for first in range(0, 40, 5):
            release = server.hold_device()
            yield payload(first)
            await until_busy(stream)
            for number in range(first + 1, first + 5):
                yield payload(number)
            release()
            await until(lambda: stream.info.frames + stream.info.dropped == first + 5)  # noqa: B023

    responses, _, pipeline = run(server, StreamOptions(mode="latest", interval=5, max_age=3600), payloads)
    assert [response.frame for response in responses] == list(range(40))
    results = [response for response in responses if isinstance(response, Result)]
    reasons = {r.frame: r.reason for r in results if r.reason}
    assert reasons == {0: "start", 14: "interval", 25: "interval", 39: "interval"}
    assert [r.key_age for r in results[:6]] == [0, 4, 5, 9, 10, 0]
    assert pipeline.done.dropped == 24


def test_latest_drops_frames_beyond_the_rate_of_their_key(server: Running) -> None:
    async def payloads(_: Stream) -> Payloads:
        for number in range(4):
            yield payload(number)

    quota = Quota("slow", Limits(rate=0.001))
    responses, published, pipeline = run(server, StreamOptions(mode="latest"), payloads, quota)
    assert [response.type for response in responses] == ["result", "dropped", "dropped", "dropped"]
    assert {response.reason for response in responses if isinstance(response, Dropped)} == {"rate"}
    assert published == responses
    assert pipeline.done == Done(frames=1, key_frames=1, errors=0, dropped=3)


def test_lossless_waits_for_the_rate_of_its_key(server: Running) -> None:
    quota = Quota("slow", Limits(rate=20))

    async def payloads(_stream: Stream) -> Payloads:
        for _ in range(20):
            quota.charge()  # what the key may send at once
        others = [asyncio.create_task(quota.wait()) for _ in range(6)]
        await asyncio.sleep(0)
        yield payload(0)
        await asyncio.gather(*others)

    responses, _, _ = run(server, StreamOptions(), payloads, quota)
    [result] = responses
    assert isinstance(result, Result)
    assert result.timings.queue > 0.1  # its turn comes after 0.35 s


def test_frames_dropped_before_a_restart_do_not_count_for_the_interval(server: Running) -> None:
    async def drops() -> Payloads:
        for number in range(4):
            yield payload(number)

    async def run() -> list[str]:
        options = StreamOptions(mode="latest", interval=5)
        stream = server.service.create_stream(options, None)
        async with stream.connected():
            dropping, _ = await feed(stream, drops(), Quota("slow", Limits(rate=0.001)))
            assert [response.type for response in dropping] == ["result", "dropped", "dropped", "dropped"]
            await stream.restart()

            async def slowly() -> Payloads:
                for number in range(6):
                    before = stream.info.frames
                    yield payload(number)
                    await until(lambda: stream.info.frames > before)  # noqa: B023

            responses, _ = await feed(stream, slowly(), UNLIMITED)
        await server.service.streams.remove(stream, "the test is over")
        return [response.kind for response in responses if isinstance(response, Result)]

    assert server.run(run()) == ["key", *["propagated"] * 4, "key"]


def test_frames_dropped_at_the_end_of_a_connection_leave_a_gap_for_the_next_single_frame(server: Running) -> None:
    async def payloads() -> Payloads:
        for number in range(3):
            yield payload(number)

    server.http.post("/v1/streams", json={"id": "mixed", "mode": "latest"})
    responses, _ = server.run(process(server.service.streams["mixed"], payloads(), Quota("slow", Limits(rate=0.001))))
    assert [response.type for response in responses] == ["result", "dropped", "dropped"]
    single = server.frame("mixed").json()
    assert (single["frame"], single["kind"], single["reason"]) == (3, "key", "gap")
    assert server.frame("mixed").json()["kind"] == "propagated"
    server.http.delete("/v1/streams/mixed")


class BlockingDecoder(ImageDecoder):
    """Decodes each image twice, the second time only after an event."""

    whole_units = False

    def __init__(self) -> None:
        super().__init__(WIDTH * HEIGHT)
        self.unblocked = threading.Event()

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:
        yield from super().decode(header, payload)
        self.unblocked.wait(PATIENCE)
        yield from super().decode(header, payload)


def test_a_payload_counts_as_consumed_only_after_its_last_frame(server: Running) -> None:
    async def run() -> list[int]:
        stream = server.service.create_stream(StreamOptions(), None)
        decoder = BlockingDecoder()
        pipeline = Pipeline(stream, decoder, UNLIMITED)

        async def payloads() -> Payloads:
            yield payload(0)

        consumed = []
        async with task_scope() as tasks:
            tasks.create_task(pipeline.feed(payloads()))
            async for _ in pipeline.responses():
                consumed.append(pipeline.consumed)
                decoder.unblocked.set()
        await server.service.streams.remove(stream, "the test is over")
        return [consumed[0], pipeline.consumed]

    assert server.run(run()) == [0, 1]


class CountingPool(ThreadPoolExecutor):
    """Counts what it is given to do."""

    count = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.count += 1
        return super().submit(*args, **kwargs)


def test_an_image_is_decoded_in_one_step_and_consumed_with_its_response(server: Running) -> None:
    async def run() -> tuple[list[int], int]:
        stream = server.service.create_stream(StreamOptions(), None)

        async def payloads() -> Payloads:
            for number in range(3):
                yield payload(number)
                await until(lambda: len(consumed) > number)  # noqa: B023 - it is called in this turn

        consumed: list[int] = []
        with CountingPool(1) as pool:
            pipeline = Pipeline(stream, ImageDecoder(WIDTH * HEIGHT), UNLIMITED, pool)
            async with task_scope() as tasks:
                tasks.create_task(pipeline.feed(payloads()))
                async for response in pipeline.responses():
                    assert response  # there is nothing to say about credit besides
                    consumed.append(pipeline.consumed)
        await server.service.streams.remove(stream, "the test is over")
        return consumed, pool.count

    assert server.run(run()) == ([1, 2, 3], 3 + 1)  # and the decoder's end


class FailingDecoder(ImageDecoder):
    """Fails after each image."""

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:
        yield from super().decode(header, payload)
        raise BadVideoError("nothing follows")


def test_an_error_after_a_frame_of_the_same_payload_is_raised_after_its_response(server: Running) -> None:
    responses: list[FrameResponse | None] = []

    async def run() -> None:
        stream = server.service.create_stream(StreamOptions(), None)
        pipeline = Pipeline(stream, FailingDecoder(WIDTH * HEIGHT), UNLIMITED)

        async def payloads() -> Payloads:
            yield payload(0)

        try:
            async with task_scope() as tasks:
                tasks.create_task(pipeline.feed(payloads()))
                async for response in pipeline.responses():
                    responses.append(response)  # noqa: PERF401 - those before the error count
        finally:
            await server.service.streams.remove(stream, "the test is over")

    with pytest.raises(BadVideoError, match="nothing follows"):
        server.run(run())
    assert [response and response.type for response in responses] == ["result"]


def test_a_producer_that_takes_no_responses_is_slowed_down(server: Running) -> None:
    async def run() -> int:
        stream = server.service.create_stream(StreamOptions(), None)
        pipeline = Pipeline(stream, ImageDecoder(WIDTH * HEIGHT), UNLIMITED)
        fed = taken = ahead = 0

        async def payloads() -> Payloads:
            nonlocal fed
            for fed in range(1, 21):
                yield payload(fed)

        async with task_scope() as tasks:
            tasks.create_task(pipeline.feed(payloads()))
            async for response in pipeline.responses():
                taken += response is not None
                await asyncio.sleep(0.01)  # enough for several frames
                ahead = max(ahead, fed - taken)
        await server.service.streams.remove(stream, "the test is over")
        return ahead

    assert server.run(run()) <= 3  # one in the outbox, one that waits for it, one that is decoded


def test_a_cancelled_pipeline_ends_only_after_its_thread_has_left_the_decoder(server: Running) -> None:
    entered, stopped = threading.Event(), threading.Event()
    left: list[bool] = []

    class SlowDecoder(ImageDecoder):
        def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:
            entered.set()
            assert stopped.wait(PATIENCE)
            time.sleep(HELD)  # as a read from the network takes to notice that it was stopped
            left.append(True)
            yield from super().decode(header, payload)

    async def payloads() -> Payloads:
        yield payload(0)

    async def run() -> None:
        stream = server.service.create_stream(StreamOptions(), None)
        pipeline = Pipeline(stream, SlowDecoder(WIDTH * HEIGHT), UNLIMITED, stop=stopped.set)
        feeding = asyncio.create_task(pipeline.feed(payloads()))
        await until(entered.is_set)
        feeding.cancel()
        await asyncio.wait([feeding])
        assert feeding.cancelled()
        assert left == [True]
        await pipeline.close()
        await server.service.streams.remove(stream, "the test is over")

    server.run(run())
