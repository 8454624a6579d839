"""One stream: its order, its key-frame state, its counters."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from keywarp.engines import FrameKind, FrameResult, StreamSession
from keywarp.protocol import (
    ClientId,
    Dropped,
    Error,
    Masks,
    Mode,
    Resolution,
    Result,
    StreamInfo,
    StreamOptions,
    StreamState,
    Timings,
)
from keywarp.server.decode.frames import Picture
from keywarp.server.errors import FrameFailedError, FrameRefusedError, StreamConflictError, StreamGoneError
from keywarp.server.models.replicas import Replica
from keywarp.server.security.quotas import Quota
from keywarp.server.streams.results import encode_result
from keywarp.server.streams.schedule import Pacing
from keywarp.server.streams.statistics import Heart
from keywarp.server.streams.subscribers import Audience
from keywarp.server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from keywarp.server.telemetry.spans import Traces

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all streams share to get their frames processed."""

    pool: Pool  # threads for decoding and encoding
    metrics: Metrics
    traces: "Traces | None" = None


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A frame that waits for the device or is on it."""

    index: int  # position in the stream
    picture: Picture
    waited: float  # seconds, before it was decoded and before it could be submitted
    job: Future[FrameResult]
    done: asyncio.Future[FrameResult]  # the same for the event loop; never cancelled by itself, so it ends with `job`


@dataclass(slots=True)
class Origin:
    """Where a stream is pulled from, and how that goes."""

    source: str  # without credentials
    state: StreamState = "connecting"
    problem: str | None = None
    reconnects: int = 0


class Stream:
    """One stream. Frames enter by `submit` (or `skip`) in order, and each one's result is fetched by `result`.

    Its audience is told of results as they are fetched; of other answers by whoever feeds it, when it is their turn.
    """

    def __init__(
        self, id_: str, replica: Replica, pacing: Pacing, options: StreamOptions, workshop: Workshop, owner: Quota
    ) -> None:
        self.id = id_
        self.owner = owner
        self.replica = replica
        self.engine = replica.engine
        self.pacing = pacing
        self.mode: Mode = options.mode or "lossless"
        self.masks: Masks = options.masks or "png"
        self.resolution: Resolution = options.resolution or "model"
        self.sinks = options.sinks or ()
        self.turn = asyncio.Lock()  # for those who feed single frames
        self.gone = asyncio.Event()
        self.gone_because = ""
        self.audience = Audience()
        self.origin: Origin | None = None  # None: clients feed it
        self._heart = Heart()
        self._workshop = workshop
        self._session = StreamSession(self.engine, pacing.open())
        self._demand = replica.device.join()
        self._connected = False
        self._next = 0
        self._size: tuple[int, ...] | None = None  # of the frames that the engine was last prepared for
        self._kept = 0  # by how many that want it not to expire now
        self._pending: set[Pending] = set()
        self._created = self._touched = time.monotonic()
        self._frames = self._key_frames = self._errors = self._dropped = 0

    @property
    def idle(self) -> float:
        """Seconds since something last happened; 0 while a frame is being processed or the server pulls."""
        busy = self._pending or self._kept or (self.origin and self.origin.state not in ("ended", "failed"))
        return 0.0 if busy else time.monotonic() - self._touched

    @property
    def info(self) -> StreamInfo:
        """What clients are told of it."""
        return StreamInfo(
            id=self.id,
            model=self.engine.bundle.name,
            device=self.replica.device.name,
            interval=self.pacing.interval,
            schedule=self.pacing.schedule,
            max_interval=self.pacing.max_interval,
            mode=self.mode,
            connected=self._connected,
            age=time.monotonic() - self._created,
            idle=self.idle,
            frames=self._frames,
            key_frames=self._key_frames,
            errors=self._errors,
            dropped=self._dropped,
            live=self._heart.pulse,
            watchers=len(self.audience),
            sinks=self.sinks,
            **(asdict(self.origin) if self.origin else {}),
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Let one connection feed it, and nothing else meanwhile.

        Raises:
            StreamConflictError: Another connection does, or single frames are coming in.
        """
        if self._connected or self.turn.locked():
            raise StreamConflictError(f"another connection feeds stream {self.id!r}")
        self._connected = True
        try:
            await self.restart()
            yield
        finally:
            self._connected = False
            self._touched = time.monotonic()
            self._cancel()

    async def restart(self) -> None:
        """Make the next frame a key frame: nobody knows what happened since the one before."""
        await self.settle()
        self._session.interrupt()

    @asynccontextmanager
    async def single_frame(self) -> AsyncIterator[None]:
        """Feed it one frame, after the single frames that came before.

        Raises:
            StreamConflictError: A connection feeds it.
        """
        if self._connected:
            raise StreamConflictError(f"a connection feeds stream {self.id!r}")
        async with self.turn:
            yield

    def skip(self, error: FrameRefusedError, id_: ClientId | None) -> Error:
        """Count a frame that couldn't be decoded. It leaves a gap, so the next one becomes a key frame.

        Returns:
            Its answer.
        """
        self._next += 1
        return self._failed(error, self._next - 1, id_)

    def drop(self, reason: str, id_: ClientId | None) -> Dropped:
        """Count a frame that is left out on purpose; the next that is submitted must be told of it.

        Returns:
            Its answer.
        """
        self._touched = time.monotonic()
        self._dropped += 1
        self._workshop.metrics.dropped(reason)
        self._next += 1
        return Dropped(frame=self._next - 1, id=id_, reason=reason)

    async def submit(self, picture: Picture, waited: float = 0.0, skipped: int = 0) -> Pending:
        """Queue one frame for the device, after the engine was compiled for frames of its size.

        Args:
            picture: The frame.
            waited: Seconds that it waited before it was decoded.
            skipped: Frames right before it that were dropped.

        Raises:
            StreamGoneError: The stream was closed.
        """
        index = self._next
        self._next += 1
        started = time.monotonic()
        if picture.pixels.shape != self._size:
            await self._prepare(picture.pixels.shape)
        if self.gone.is_set():
            raise StreamGoneError(self.gone_because)
        job = self.replica.device.executor.submit(self._session, picture.pixels, index, skipped)
        waited += time.monotonic() - started
        pending = Pending(index, picture, waited, job, asyncio.wrap_future(job))
        self._pending.add(pending)
        pending.done.add_done_callback(lambda _: self._finished(pending))
        return pending

    async def outcome(self, pending: Pending) -> FrameResult:
        """Wait for a frame's result; whoever delivers it says so by `count`. Those who look are shown it.

        Raises:
            FrameFailedError: The engine failed on it.
            StreamGoneError: The stream was closed before its turn came.
        """
        await asyncio.wait([pending.done])
        if pending.done.cancelled():
            raise StreamGoneError(self.gone_because)
        if error := pending.done.exception():
            log.error("stream %s, frame %d: the engine failed", self.id, pending.index, exc_info=error)
            failure = FrameFailedError(f"frame {pending.index} could not be processed")
            self.audience.tell(self._failed(failure, pending.index, pending.picture.id))
            raise failure from error
        found = pending.done.result()
        self.audience.show(pending.picture, found)
        return found

    async def result(self, pending: Pending) -> Result:
        """Wait for a frame's result and put it into its wire form; raises as `outcome`."""
        found = await self.outcome(pending)
        result = await self.encode(pending, found)
        self.count(found, result.timings)
        self.audience.tell(result)
        return result

    async def encode(self, pending: Pending, found: FrameResult) -> Result:
        """Put a frame's result into its wire form."""
        picture = pending.picture
        encode = partial(
            encode_result,
            found,
            self.engine.bundle.manifest.classes,
            stream=self.id,
            decode=picture.decode,
            queue=pending.waited + found.queue,
            id=picture.id,
            timestamp=picture.timestamp,
            masks=self.masks,
            resolution=self.resolution,
        )
        return await asyncio.get_running_loop().run_in_executor(self._workshop.pool, encode)

    def count(self, found: FrameResult, timings: Timings) -> None:
        """Count a frame whose result is delivered."""
        self._frames += 1
        self._key_frames += found.kind is FrameKind.KEY
        self._heart.beat(timings, key=found.kind is FrameKind.KEY)
        self._workshop.metrics.frame(self.engine.bundle.name, found, timings)
        if traces := self._workshop.traces:
            traces.frame(self.id, self.engine.bundle.name, found, timings, apart=self._connected)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it from expiring while one of its frames waits."""
        self._kept += 1
        try:
            yield
        finally:
            self._kept -= 1
            self._touched = time.monotonic()

    async def watch(self) -> None:
        """Wait until it is closed.

        Raises:
            StreamGoneError: It is, always.
        """
        await self.gone.wait()
        raise StreamGoneError(self.gone_because)

    async def settle(self) -> None:
        """Wait until none of its frames is on the device or waits for it."""
        if self._pending:
            await asyncio.wait([pending.done for pending in self._pending])

    async def close(self, because: str) -> None:
        """Drop what is queued, wait for what is on the device, and free the state."""
        self.gone_because = because
        self.gone.set()
        self.replica.device.leave(self._demand)
        self._cancel()
        await self.settle()
        self.audience.end()
        self._session.close()

    async def _prepare(self, shape: tuple[int, ...]) -> None:
        height, width, _ = shape
        with self.kept():
            try:
                # On a thread of its own, since it may take seconds: other streams' frames mustn't wait.
                await asyncio.to_thread(self.engine.prepare, height, width)
                self._size = shape
            except Exception:
                # The device will try again, and its failure is told as this frame's.
                log.exception("stream %s: the engine can't be prepared for %dx%d", self.id, width, height)

    def _finished(self, pending: Pending) -> None:
        self._pending.discard(pending)
        self._touched = time.monotonic()
        # Asking for the exception has it seen, even if nobody is left to fetch the result.
        if not pending.done.cancelled() and pending.done.exception() is None:
            self.replica.device.note(self._demand, pending.done.result())

    def _cancel(self) -> None:
        for pending in self._pending:
            pending.job.cancel()

    def _failed(self, error: FrameRefusedError, index: int, id_: ClientId | None) -> Error:
        self._touched = time.monotonic()
        self._errors += 1
        self._workshop.metrics.error(self.engine.bundle.name, error.reason)
        if traces := self._workshop.traces:
            traces.failed(self.id, self.engine.bundle.name, index, error.reason, apart=self._connected)
        return Error(problem=error.problem, fatal=False, frame=index, id=id_)
