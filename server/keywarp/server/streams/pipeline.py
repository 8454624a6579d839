"""Process a producer's payloads in stages, which work on different frames at the same time.

    payloads -> decode -> device -> outbox -> responses

While one frame is on the device, the next is decoded and the previous one encoded. The outbox is bounded, so a producer
that doesn't read responses makes the earlier stages wait. In the mode `latest` decoding never waits for the device:
only the newest of the frames that were decoded in the meantime is processed.

An API key may be limited to a rate of frames. Then frames wait in the mode `lossless`, which slows the producer down,
and are dropped in the mode `latest`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor as Pool
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from keywarp.engines import FrameResult, MotionVectors
from keywarp.protocol import ClientId, Done, Dropped, Error, FrameHeader, Result
from keywarp.server.decode.frames import Decoded, DecodedFrame, Decoder
from keywarp.server.errors import FrameRefusedError, ServerError
from keywarp.server.security.quotas import Quota
from keywarp.server.streams.stream import Stream
from keywarp.server.streams.subscribers import FrameResponse
from keywarp.videos import Note

# Reasons for dropping a frame.
NEWER: Final = "newer"
RATE: Final = "rate"
MAX_FPS: Final = "max_fps"


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedPayload:
    """What a producer sends at a time: an image, a packet, or a chunk of a video."""

    header: FrameHeader
    data: memoryview
    received: float  # monotonic seconds


class _Mark(Enum):
    """Markers that pass through the pipeline besides frames."""

    CONSUMED = auto()  # a payload was decoded completely
    END = auto()


@dataclass(frozen=True, slots=True, eq=False)
class _Superseded:
    """A frame to drop, without its pixels."""

    id: ClientId | None
    reason: str
    vectors: MotionVectors | None  # the frame's
    gap: bool  # whether frames are missing before it


@dataclass(frozen=True, slots=True, eq=False)
class _Failure:
    """The end of the pipeline because of an error."""

    error: ServerError


_Item = Decoded | _Superseded | _Mark | _Failure
_Outgoing = tuple[DecodedFrame, asyncio.Future[FrameResult]] | Error | Dropped | _Mark | _Failure


class _Steps:
    """What a decoder makes of one payload, step by step on threads.

    Attributes:
        ended: Whether there is nothing more.
    """

    def __init__(self, items: Iterator[Decoded], most: int) -> None:
        """Begin.

        Args:
            items: The decoder's items.
            most: The most items of a step. From 2 on, the end of a payload with one item is found in the same step.
        """
        self._items = items
        self._most = most
        self._error: ServerError | None = None
        self.ended = False

    def take(self) -> list[Decoded]:
        """Decode the next items. An error that comes after some of them is raised by the next step."""
        if self._error:
            raise self._error
        taken: list[Decoded] = []
        try:
            for item in self._items:
                taken.append(item)
                if len(taken) == self._most:
                    return taken
        except ServerError as error:
            if not taken:
                raise
            self._error = error
            return taken
        self.ended = True
        return taken


class Pipeline:
    """The stages between one producer and its stream.

    Run `feed` in a task, and iterate over `responses` at the same time.

    Attributes:
        consumed: The number of payloads that were decoded completely, for the producer's flow control.
    """

    def __init__(
        self,
        stream: Stream,
        decoder: Decoder,
        quota: Quota,
        pool: Pool | None = None,
        stop: Callable[[], None] | None = None,
    ) -> None:
        """Set up the stages.

        Args:
            stream: The stream that the frames go to.
            decoder: The decoder of the payloads, which `close` closes.
            quota: The quota that the frames are charged to.
            pool: Threads for the decoder, or None for the shared threads, which must not be blocked for long.
            stop: A function that makes a running step of the decoder end soon, or None if steps are short.
        """
        self._stream = stream
        self._decoder = decoder
        self._quota = quota
        self._pool = pool or stream.pool
        self._stop = stop
        self._newest = _NewestFrame(quota) if stream.mode == "latest" else None
        self._outbox: asyncio.Queue[_Outgoing] = asyncio.Queue(1)
        self._frames = self._key_frames = self._errors = self._dropped = 0
        self.consumed = 0

    @property
    def done(self) -> Done:
        """The counts of the responses so far."""
        return Done(
            frames=self._frames,
            key_frames=self._key_frames,
            errors=self._errors,
            dropped=self._dropped,
            notes=self._stream.notes,
        )

    async def feed(self, payloads: AsyncIterator[ReceivedPayload]) -> None:
        """Decode all payloads and submit their frames.

        Args:
            payloads: The payloads up to the producer's end. A `ServerError` that they raise is raised by `responses`,
                after the responses to everything before it.
        """
        if self._newest is None:
            await self._decode(payloads, self._submit_each)
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._submit_newest(self._newest))
            await self._decode(payloads, self._newest.put)

    async def responses(self) -> AsyncIterator[FrameResponse | None]:
        """Yield the response to each frame, in order, and None whenever a payload was consumed.

        Raises:
            ServerError: No more responses can follow.
        """
        while (item := await self._outbox.get()) is not _Mark.END:
            match item:
                case (frame, done):
                    yield await self._deliver(frame, done)
                case Error() | Dropped():
                    self._count(item)
                    self._stream.subscribers.publish(item)
                    yield item
                case _Failure():
                    raise item.error
                case _Mark.CONSUMED:
                    yield None

    async def close(self) -> None:
        """Free the decoder."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._decoder.close)

    async def _decode(self, payloads: AsyncIterator[ReceivedPayload], put: Callable[[_Item], Awaitable[None]]) -> None:
        most = 2 if self._decoder.whole_units else 1
        try:
            async for payload in payloads:
                waited = time.monotonic() - payload.received
                steps = _Steps(self._decoder.decode(payload.header, payload.data), most)
                if not await self._put_all(steps, waited, put):
                    await put(_Mark.CONSUMED)
            await self._put_all(_Steps(self._decoder.finish(), most), 0.0, put, counts=False)
        except ServerError as error:  # reported in order, after the responses to earlier frames
            await put(_Failure(error))
        else:
            await put(_Mark.END)

    async def _put_all(
        self, steps: _Steps, waited: float, put: Callable[[_Item], Awaitable[None]], *, counts: bool = True
    ) -> bool:
        """Put all items of a payload, which `counts` or is only the decoder's end.

        Returns:
            Whether a response follows that announces the payload as consumed.
        """
        announced = False
        while not steps.ended:
            items = await self._step(steps)
            if steps.ended and counts:
                self.consumed += 1
            for item in items:
                if isinstance(item, DecodedFrame):
                    item.waited += waited
                    if self._is_too_soon(item):
                        await put(_Superseded(item.id, MAX_FPS, item.vectors, item.gap))
                        announced = steps.ended
                        continue
                await put(item)
                announced = steps.ended and not isinstance(item, Note)
        return announced

    def _is_too_soon(self, frame: DecodedFrame) -> bool:
        """Return whether the stream takes fewer frames per second."""
        rate = self._stream.frame_rate
        at = time.monotonic() if frame.timestamp is None else frame.timestamp
        return rate is not None and not rate.takes(at)

    async def _step(self, steps: _Steps) -> list[Decoded]:
        """Run the decoder for one step.

        If this is cancelled, it still waits until no thread runs the decoder.
        """
        step = asyncio.get_running_loop().run_in_executor(self._pool, steps.take)
        try:
            with self._stream.keep_alive():
                return await asyncio.shield(step)
        except asyncio.CancelledError:
            if self._stop:
                self._stop()
            await asyncio.wait([step])
            step.exception()  # marks it as retrieved
            raise

    async def _submit_each(self, item: _Item) -> None:
        """Submit an item in the mode `lossless`, as soon as the quota allows."""
        if isinstance(item, DecodedFrame):
            with self._stream.keep_alive():
                item.waited += await self._quota.wait()
        await self._submit(item)

    async def _submit(self, item: _Item) -> None:
        """Queue a frame for the device, and put every item into the outbox."""
        match item:
            case DecodedFrame():
                try:
                    done = await self._stream.submit(item)
                except FrameRefusedError as error:
                    await self._outbox.put(self._stream.refuse(error))
                else:
                    await self._outbox.put((item, done))
            case FrameRefusedError():
                await self._outbox.put(self._stream.refuse(item))
            case Note():
                self._stream.note(item.text)
            case _Superseded():
                await self._outbox.put(self._stream.drop(item.id, item.reason, item.vectors, gap=item.gap))
            case _:
                await self._outbox.put(item)

    async def _submit_newest(self, newest: "_NewestFrame") -> None:
        """Submit items in the mode `latest`, whenever the device has finished the last frame."""
        item: _Item | None = None
        try:
            while item is not _Mark.END and not isinstance(item, _Failure):
                for item in await newest.take():
                    await self._submit(item)
                await self._stream.wait_until_idle()
        except ServerError as error:  # the stream was closed
            await self._outbox.put(_Failure(error))

    async def _deliver(self, frame: DecodedFrame, done: asyncio.Future[FrameResult]) -> FrameResponse:
        try:
            response: FrameResponse = await self._stream.deliver(frame, await self._stream.result(frame, done))
        except FrameRefusedError as error:
            response = self._stream.error(error, frame.index, frame.received)
        self._count(response)
        return response

    def _count(self, response: FrameResponse) -> None:
        match response:
            case Result():
                self._frames += 1
                self._key_frames += response.kind == "key"
            case Error():
                self._errors += 1
            case Dropped():
                self._dropped += 1


class _NewestFrame:
    """Collects what is decoded while the device is busy, in order. It keeps only the newest frame."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._items: list[tuple[_Item, float]] = []  # items, and the monotonic seconds at which each was put
        self._ready = asyncio.Event()

    async def put(self, item: _Item) -> None:
        """Add an item. A new frame supersedes an older one. This never waits."""
        if item is _Mark.CONSUMED and self._items:
            return  # the next response announces the credit anyway
        if isinstance(item, DecodedFrame):
            for place, (old, since) in enumerate(self._items):
                if isinstance(old, DecodedFrame):  # the quota was charged for it; the new frame uses that charge
                    self._items[place] = _Superseded(old.id, NEWER, old.vectors, old.gap), since
                    break
            else:
                if self._quota.try_charge():
                    item = _Superseded(item.id, RATE, item.vectors, item.gap)
        self._items.append((item, time.monotonic()))
        self._ready.set()

    async def take(self) -> list[_Item]:
        """Wait for an item, and take all items."""
        await self._ready.wait()
        self._ready.clear()
        taken, self._items, now = self._items, [], time.monotonic()
        for item, since in taken:
            if isinstance(item, DecodedFrame):
                item.waited += now - since
        return [item for item, _ in taken]
