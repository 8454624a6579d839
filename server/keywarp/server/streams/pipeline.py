"""From payloads to answers: decode, device, answer, one after the other, but each on another frame at a time.

    arrivals -> decode -> device -> outbox -> answers

While a frame is on the device, the next is being decoded and the one before encoded. The outbox is bounded, so whoever
doesn't take answers makes those before it wait. In the mode `latest` decoding never waits for the device: of the frames
that are decoded while it is busy, only the newest gets there.

The API key whose frames they are may have only so many a second on the device: then `lossless` ones wait, which slows
down whoever sends them, and `latest` ones are dropped.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Executor as Pool
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from keywarp.protocol import ClientId, Done, Dropped, Error, FrameHeader, Result
from keywarp.server.decode.frames import Damage, Decoder, Picture
from keywarp.server.errors import FrameRefusedError, ServerError
from keywarp.server.security.quotas import Quota
from keywarp.server.service import Service
from keywarp.server.streams.stream import Pending, Stream
from keywarp.server.streams.subscribers import Answer

# why a frame was dropped
NEWER: Final = "newer"
RATE: Final = "rate"


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """One payload of a client."""

    header: FrameHeader
    payload: memoryview
    at: float  # monotonic seconds


class _Token(Enum):
    """What goes through the pipeline besides content."""

    CONSUMED = auto()  # a payload was decoded entirely
    END = auto()


@dataclass(frozen=True, slots=True, eq=False)
class _Left:
    """A picture that is left out."""

    id: ClientId | None
    reason: str


_Item = Picture | Damage | ServerError | _Token


def _nothing() -> None:
    pass


@asynccontextmanager
async def beside(*watches: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.TaskGroup]:
    """Run a block and its tasks, and watches beside them: one that raises ends all, and the block's end ends them.

    Raises:
        BaseException: The first error of any of them, alone.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(watch) for watch in watches]
            yield tasks
            for watch in running:
                watch.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


class Pipeline:
    """What one connection's payloads go through. Run `decode` in a task, and take the `answers` beside it."""

    def __init__(
        self,
        service: Service,
        stream: Stream,
        decoder: Decoder,
        quota: Quota,
        pool: Pool | None = None,
        stop: Callable[[], None] = _nothing,
    ) -> None:
        """Lay the pipeline.

        Args:
            service: The server's.
            stream: Where the frames go.
            decoder: What makes them; closed by `close`.
            quota: What they are charged to.
            pool: Threads for it; None: the server's, which mustn't be kept waiting.
            stop: Has a step of the decoder end soon.
        """
        self._service = service
        self._stream = stream
        self._decoder = decoder
        self._quota = quota
        self._pool = pool or service.pool
        self._stop = stop
        self._latest = _Latest(quota) if stream.mode == "latest" else None
        self._outbox: asyncio.Queue[Pending | Error | Dropped | ServerError | _Token] = asyncio.Queue(1)
        self._frames = self._key_frames = self._errors = self._dropped = 0

    @property
    def done(self) -> Done:
        """The count of the answers that were taken."""
        return Done(frames=self._frames, key_frames=self._key_frames, errors=self._errors, dropped=self._dropped)

    async def decode(self, arrivals: AsyncIterator[Arrived], consumed: Callable[[], None] = _nothing) -> None:
        """Decode all that arrives and queue its frames for the device.

        Args:
            arrivals: Ends where the client says so. If it raises `ServerError`, `answers` does so in its turn.
            consumed: Called after each payload.
        """
        if self._latest is None:
            await self._decode(arrivals, consumed, self._submit_each)
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._submit_latest(self._latest))
            await self._decode(arrivals, consumed, self._latest.put)

    async def answers(self) -> AsyncIterator[Answer | None]:
        """One for each frame, in order; None where a payload was consumed.

        Raises:
            ServerError: Nothing more can come.
        """
        while (item := await self._outbox.get()) is not _Token.END:
            match item:
                case Pending():
                    yield await self._answer(item)
                case Error():
                    self._errors += 1
                    self._stream.audience.tell(item)
                    yield item
                case Dropped():
                    self._dropped += 1
                    self._stream.audience.tell(item)
                    yield item
                case ServerError():
                    raise item
                case _Token.CONSUMED:
                    yield None

    async def close(self) -> None:
        """Free the decoder."""
        await asyncio.get_running_loop().run_in_executor(self._pool, self._decoder.close)

    async def _decode(
        self,
        arrivals: AsyncIterator[Arrived],
        consumed: Callable[[], None],
        give: Callable[[_Item, float], Awaitable[None]],
    ) -> None:
        try:
            async for arrived in arrivals:
                waited = time.monotonic() - arrived.at
                await self._give(self._decoder.decode(arrived.header, arrived.payload), waited, give)
                consumed()
                await give(_Token.CONSUMED, 0.0)
            await self._give(self._decoder.finish(), 0.0, give)
        except ServerError as error:  # told when it is its turn, after the results of what came before
            await give(error, 0.0)
        else:
            await give(_Token.END, 0.0)

    async def _give(
        self, items: Iterator[Picture | Damage], waited: float, give: Callable[[_Item, float], Awaitable[None]]
    ) -> None:
        while item := await self._step(items):
            await give(item, waited)

    async def _step(self, items: Iterator[Picture | Damage]) -> Picture | Damage | None:
        """Run the decoder up to its next item; None: there is none.

        Even if this is cancelled, no thread is in the decoder any more afterwards.
        """
        step = asyncio.get_running_loop().run_in_executor(self._pool, next, items, None)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            self._stop()
            await asyncio.wait([step])
            step.exception()  # seen
            raise

    async def _submit_each(self, item: _Item, waited: float) -> None:
        """Submit whatever comes, frames as fast as they may."""
        if isinstance(item, Picture):
            with self._stream.kept():
                waited += await self._quota.wait()
        await self._submit(item, waited)

    async def _submit(self, item: _Item, waited: float, skipped: int = 0) -> None:
        """Let a frame take its place in the queue for the device, and whatever comes to the outbox."""
        match item:
            case Picture():
                await self._outbox.put(await self._stream.submit(item, waited, skipped))
            case Damage():
                await self._outbox.put(self._stream.skip(item.error, item.id))
            case _:
                await self._outbox.put(item)

    async def _submit_latest(self, latest: "_Latest") -> None:
        """Submit whenever the frame before is done."""
        item: _Item | _Left | None = None
        skipped = 0  # since the last picture
        try:
            while item is not _Token.END and not isinstance(item, ServerError):
                for item, waited in await latest.take():
                    if isinstance(item, _Left):
                        skipped += 1
                        await self._outbox.put(self._stream.drop(item.reason, item.id))
                    else:
                        await self._submit(item, waited, skipped)
                        skipped = 0 if isinstance(item, Picture) else skipped
                await self._stream.settle()
        except ServerError as error:  # the stream is gone
            await self._outbox.put(error)

    async def _answer(self, pending: Pending) -> Result | Error:
        try:
            result = await self._stream.result(pending)
        except FrameRefusedError as error:
            self._errors += 1
            return Error(problem=error.problem, fatal=False, frame=pending.index, id=pending.picture.id)
        self._frames += 1
        self._key_frames += result.kind == "key"
        return result


class _Latest:
    """What was decoded while the device was busy, in order: at most one picture, and whatever else."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._waiting: list[tuple[_Item | _Left, float]] = []  # since when; monotonic seconds
        self._some = asyncio.Event()

    async def put(self, item: _Item, waited: float) -> None:
        """Add something that has waited some seconds already; this never waits."""
        if item is _Token.CONSUMED and self._waiting:
            return  # credit is told of by the next answer anyway
        entry: _Item | _Left = item
        if isinstance(item, Picture):
            for place, (old, since) in enumerate(self._waiting):
                if isinstance(old, Picture):  # which has paid for the place
                    self._waiting[place] = _Left(old.id, NEWER), since
                    break
            else:
                if self._quota.try_charge():
                    entry = _Left(item.id, RATE)
        self._waiting.append((entry, time.monotonic() - waited))
        self._some.set()

    async def take(self) -> list[tuple[_Item | _Left, float]]:
        """Wait for something, and take all that there is, with the seconds that it has waited."""
        await self._some.wait()
        self._some.clear()
        taken, self._waiting, now = self._waiting, [], time.monotonic()
        return [(item, now - since) for item, since in taken]
