"""One stream, with the order of its frames, its key-frame state and its counters."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from keywarp.engines import FrameKind, FrameResult, MotionVectors, StreamSession, TooManySizesError
from keywarp.protocol import (
    CameraOptions,
    ClientId,
    Dropped,
    Error,
    Masks,
    Mode,
    Reliability,
    Resolution,
    Result,
    StreamInfo,
    StreamOptions,
    Timings,
)
from keywarp.protocol.events import Event, Rules
from keywarp.server.decode.frames import DecodedFrame
from keywarp.server.decode.recorder import Recorder
from keywarp.server.errors import (
    FrameFailedError,
    FrameRefusedError,
    SizeRefusedError,
    StreamClosedError,
    StreamConflictError,
    StreamTakenOverError,
)
from keywarp.server.models.replicas import Replica
from keywarp.server.security.quotas import Quota
from keywarp.server.streams.context import StreamContext
from keywarp.server.streams.examiner import Examiner
from keywarp.server.streams.frame_rate import FrameRate
from keywarp.server.streams.hiding import Hidden
from keywarp.server.streams.results import encode_result
from keywarp.server.streams.schedule import ScheduleOptions
from keywarp.server.streams.statistics import StreamStatistics
from keywarp.server.streams.subscribers import FrameResponse, Subscribers

if TYPE_CHECKING:
    from concurrent.futures import Future

    from keywarp.server.streams.pull_status import PullStatus

log = logging.getLogger(__name__)

MAX_NOTES: Final = 16
MAX_VECTORS: Final = 64  # dropped frames in a row through which motion is followed


class Stream:
    """One stream. Its producer submits frames in order, and then delivers the response to each.

    `submit` queues a frame for the device, `result` waits for the engine's result, and `deliver` makes the response.
    `refuse` and `drop` make the responses to frames that never reach the device.
    """

    def __init__(
        self,
        id_: str,
        replica: Replica,
        schedule: ScheduleOptions,
        options: StreamOptions,
        context: StreamContext,
        owner: Quota,
    ) -> None:
        self.id = id_
        self.run = secrets.token_hex(6)
        self.owner = owner
        self.replica = replica
        self.engine = replica.engine
        self.schedule = schedule
        self._set_options(options)
        self.upright = options.upright is not False
        self.video = options.video
        self.sinks = options.sinks or ()
        self.notes: tuple[str, ...] = ()  # what one should know about its video
        self.closed = asyncio.Event()
        self.renewal = asyncio.Event()  # asks a pull to connect again, with other options or another model version
        self.changed = asyncio.Event()  # set when options or rules are others
        self.close_reason = ""
        self.expired = False
        self.subscribers: Subscribers[FrameResponse] = Subscribers()
        self.pull: PullStatus | None = None  # None if clients feed the stream
        self.pool = context.workers.share()
        self._metrics = context.metrics
        self._tracer = context.tracer
        self._statistics = StreamStatistics()
        self._examiner = Examiner(id_, replica.engine.bundle.manifest, context, self.pool, track=self.track)
        self._session = self._open_session()
        self._load = replica.device.add_stream()
        self._left = asyncio.Event()  # set when the stream leaves its replica
        self._disconnected = asyncio.Event()  # cleared while a connection feeds it
        self._disconnected.set()
        self._taken_over = asyncio.Event()  # asks that connection to end
        self._feeder: Quota | None = None  # of the client whose other connections may take it over
        self._single_frames = asyncio.Lock()  # held while a single frame is processed
        self._next = 0  # index of the next frame
        self._gap = False  # whether frames are missing before one of those that were dropped
        self._skipped = 0  # frames dropped since the last one that was submitted
        self._vectors: list[MotionVectors | None] = []  # theirs
        self._prepared: tuple[int, ...] | None = None  # shape of the frames that the engine was last prepared for
        self._warned_of_sizes = False
        self._holds = 0  # number of callers in `keep_alive`
        self._pending: dict[asyncio.Future[FrameResult], Future[FrameResult]] = {}  # frames queued or on the device
        self._created = self._touched = time.monotonic()
        self._last_result: float | None = None  # its monotonic seconds
        self._frames = self._key_frames = self._errors = self._dropped = 0

    @property
    def _connected(self) -> bool:
        return not self._disconnected.is_set()

    @property
    def idle(self) -> float:
        """Seconds since the last activity; 0 while a frame is processed or the stream is pulled."""
        busy = self._pending or self._holds or (self.pull and self.pull.state not in ("ended", "failed"))
        return 0.0 if busy else time.monotonic() - self._touched

    @property
    def age(self) -> float:
        """Seconds since the stream was created."""
        return time.monotonic() - self._created

    @property
    def frame_age(self) -> float | None:
        """Seconds since the last result, or None if there was none."""
        return None if self._last_result is None else time.monotonic() - self._last_result

    @property
    def info(self) -> StreamInfo:
        """The stream's settings and state, as clients see them."""
        return StreamInfo(
            id=self.id,
            model=self.engine.bundle.name,
            device=self.replica.device.name,
            interval=self.schedule.interval,
            schedule=self.schedule.schedule,
            max_interval=self.schedule.max_interval,
            max_age=self.schedule.max_age,
            overlap=self.schedule.overlap,
            max_fps=self.options.max_fps,
            hidden=tuple(self.hidden.regions),
            mode=self.mode,
            connected=self._connected and (self.pull is None or self.pull.state == "running"),
            age=self.age,
            idle=self.idle,
            frame_age=self.frame_age,
            frames=self._frames,
            key_frames=self._key_frames,
            errors=self._errors,
            dropped=self._dropped,
            live=self._statistics.live,
            watchers=len(self.subscribers),
            sinks=self.sinks,
            track=self._examiner.tracks,
            rules=tuple(self.rules.rules),
            title=self.rules.title,
            notes=self.notes,
            **(asdict(self.pull) if self.pull else {}),
        )

    # -- the rules -----------------------------------------------------------------------------------------------------

    @property
    def rules(self) -> Rules:
        """Its zones, lines and rules."""
        return self._examiner.rules

    @property
    def events(self) -> Subscribers[Event]:
        """The subscribers of its events by the present rules."""
        return self._examiner.events

    @property
    def recorder(self) -> Recorder | None:
        """Keeps the packets of a pulled stream whose events have clips; from its next connection on."""
        return self._examiner.recorder

    async def watch(self, rules: Rules) -> None:
        """Watch by rules from now on, instead of those before, whose events end.

        Raises:
            BadMessageError: The model has no such class, or finds nothing that a rule can be about.
        """
        await self._examiner.watch(rules)
        self.changed.set()

    async def end_events(self) -> None:
        """End all open events."""
        await self._examiner.end_events()

    # -- the producer --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connected(self, feeder: Quota | None = None) -> AsyncIterator[None]:
        """Make the caller the stream's only producer.

        Args:
            feeder: The quota of a client that may go on over another connection, see `take_over`; or None.

        Raises:
            StreamConflictError: Another connection feeds the stream, or single frames are coming in.
        """
        if self._connected or self._single_frames.locked():
            raise StreamConflictError(f"another connection feeds stream {self.id!r}")
        self._disconnected.clear()
        self._taken_over.clear()
        self._feeder = feeder
        try:
            await self.restart()
            yield
        finally:
            self._feeder = None
            self._disconnected.set()
            self._touched = time.monotonic()
            self._skipped = 0  # to single frames, those that were dropped at the end are a gap
            self._vectors.clear()
            self._cancel_queued()

    async def take_over(self, feeder: Quota) -> None:
        """End the connection that feeds the stream, if it is the same client's. Then it isn't connected any more.

        A client may have lost a connection that still looks healthy from here.
        """
        if self._feeder is feeder:
            self._taken_over.set()
            await self._disconnected.wait()

    async def raise_when_taken_over(self) -> None:
        """Wait until the client goes on over another connection.

        Raises:
            StreamTakenOverError: It does. The method never returns normally.
        """
        await self._taken_over.wait()
        raise StreamTakenOverError(f"stream {self.id!r} goes on over another connection")

    async def change(self, options: StreamOptions, schedule: ScheduleOptions) -> None:
        """Go on with other options, from the next frame on. A pull connects again if the mode is another one."""
        mode = self.mode
        self._set_options(options)
        self._examiner.set_track(self.track)
        self.changed.set()
        if self.pull and self.mode != mode:
            self.renewal.set()
        if schedule == self.schedule:
            return
        self.schedule = schedule
        old, queued = self._session, [*self._pending]
        self._session = self._open_session()
        if queued:
            await asyncio.wait(queued)
        old.close()

    def move(self, replica: Replica, schedule: ScheduleOptions) -> None:
        """Go on with another replica. The stream must be idle, no response may be missing, and no event may be open.

        Raises:
            BadMessageError: The model lacks what the rules name. The stream stays as it is.
        """
        self._examiner.move(replica.engine.bundle.manifest)
        self.replica.device.remove_stream(self._load)
        self._session.close()
        self.replica, self.engine, self.schedule = replica, replica.engine, schedule
        self._prepared = None
        self._session = self._open_session()
        self._load = replica.device.add_stream()
        self._left.set()
        self._left = asyncio.Event()

    async def restart(self) -> None:
        """Make the next frame a key frame, because frames may be missing before it. Open events end."""
        await self.wait_until_idle()
        await self.end_events()
        self._session.interrupt()
        self._skipped = 0
        self._vectors.clear()

    def touch(self) -> None:
        """Note that something has arrived for the stream."""
        self._touched = time.monotonic()

    @contextmanager
    def keep_alive(self) -> Iterator[None]:
        """Keep the stream from expiring while one of its frames waits."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._touched = time.monotonic()

    # -- the way of a frame --------------------------------------------------------------------------------------------

    async def process(self, decode: Callable[[], DecodedFrame]) -> Result:
        """Process a single frame, after earlier single frames, and return its wire result.

        Args:
            decode: A function that decodes the frame. It runs on a thread.

        Raises:
            StreamConflictError: A connection feeds the stream.
            FrameRefusedError: The frame can't be decoded, or the engine failed on it.
            StreamClosedError: The stream was closed.
        """
        async with self._single_frame(decode) as (frame, found):
            return await self.deliver(frame, found)

    async def infer(self, decode: Callable[[], DecodedFrame]) -> FrameResult:
        """Process a single frame like `process`, but return the engine's result.

        The wire form is made only if there are subscribers to responses.
        """
        async with self._single_frame(decode) as (frame, found):
            if self.subscribers.want_responses:
                await self.deliver(frame, found)
            else:
                timings = Timings(
                    decode=frame.decode,
                    queue=frame.waited + found.queue,
                    inference=found.inference,
                    postprocess=found.postprocess,
                )
                self._count(found, timings)
            return found

    async def submit(self, frame: DecodedFrame) -> asyncio.Future[FrameResult]:
        """Queue a frame for the device. The engine is compiled first for frames of a new size.

        Returns:
            The future for `result`. Its caller must not cancel it, so that it ends only when the device is done.

        Raises:
            StreamClosedError: The stream was closed.
            SizeRefusedError: The model can't be compiled for one more frame size. The frame has no index.
        """
        frame.received = datetime.now(UTC) - timedelta(seconds=frame.waited + frame.decode)
        started = time.monotonic()
        frame.pixels = self.hidden.cover(frame.pixels)
        if frame.pixels.shape != self._prepared:
            await self._prepare(frame)
        frame.index, skipped = self._next, self._skipped
        self._next += 1
        if self.closed.is_set():
            raise self.gone
        vectors = [*self._vectors, frame.vectors] if self.engine.takes_vectors else ()
        gap = frame.gap or self._gap
        self._skipped, self._gap = 0, False
        self._vectors.clear()
        frame.waited += time.monotonic() - started  # the executor measures the time from here on
        job = self.replica.device.executor.submit(
            self._session, frame.pixels, frame.index, skipped, vectors, frame.timestamp, gap=gap
        )
        done = asyncio.wrap_future(job)
        self._pending[done] = job
        done.add_done_callback(self._job_done)
        return done

    async def result(self, frame: DecodedFrame, done: asyncio.Future[FrameResult]) -> FrameResult:
        """Wait for the result of a submitted frame, track its objects, and show it in previews.

        Raises:
            FrameFailedError: The engine failed on the frame.
            StreamClosedError: The stream was closed before the frame was processed.
        """
        await asyncio.wait([done])
        if done.cancelled():
            raise self.gone
        if error := done.exception():
            log.error("stream %s, frame %d: the engine failed", self.id, frame.index, exc_info=error)
            failure = FrameFailedError(f"frame {frame.index} could not be processed", frame.id)
            self.subscribers.publish(self._count_failed(failure, frame.index, frame.received))
            raise failure from error
        found = done.result()
        found = await self._examiner.examine(frame, found)  # frames come here in order
        self.subscribers.publish_frame(frame, found)
        return found

    async def deliver(self, frame: DecodedFrame, found: FrameResult) -> Result:
        """Put a result into its wire form, count it, and publish it to the subscribers."""
        manifest = self.engine.bundle.manifest
        encode = partial(
            encode_result,
            found,
            manifest.classes,
            stream=self.id,
            run=self.run,
            decode=frame.decode,
            waited=frame.waited,
            id=frame.id,
            timestamp=frame.timestamp,
            received=frame.received,
            masks=self.masks,
            resolution=self.resolution,
            reliability=self.reliability,
            background=manifest.background,
            dense=manifest.dense,
        )
        result = await asyncio.get_running_loop().run_in_executor(self.pool, encode)
        self._count(found, result.timings)
        self.subscribers.publish(result)
        return result

    def refuse(self, error: FrameRefusedError) -> Error:
        """Count a frame that can't be decoded, and make its response. The gap makes the next frame a key frame."""
        self._next += 1
        return self._count_failed(error, self._next - 1, datetime.now(UTC))

    def drop(
        self, id_: ClientId | None, reason: str, vectors: MotionVectors | None = None, *, gap: bool = False
    ) -> Dropped:
        """Count a frame that is left out on purpose, and make its response.

        The frame leaves no gap, and doesn't count towards the key interval.

        Args:
            id_: The producer's id of the frame.
            reason: The reason for leaving it out.
            vectors: The frame's motion vectors, through which motion is followed nevertheless, or None.
            gap: Whether frames are missing before it, which makes the next one a key frame.
        """
        self._touched = time.monotonic()
        self._dropped += 1
        self._metrics.count_dropped(reason)
        self._skipped += 1
        self._gap = self._gap or gap
        if self.engine.takes_vectors:
            self._vectors = [*self._vectors, vectors] if len(self._vectors) < MAX_VECTORS else [None]
        self._next += 1
        return Dropped(
            stream=self.id, time=datetime.now(UTC), frame=self._next - 1, run=self.run, id=id_, reason=reason
        )

    def note(self, text: str) -> None:
        """Note what one should know about the stream's video."""
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes = (*self.notes, text)
            log.info("stream %s: %s", self.id, text)

    async def wait_until_idle(self) -> None:
        """Wait until none of the stream's frames is queued for the device or on it."""
        if self._pending:
            await asyncio.wait(self._pending)

    # -- the end -------------------------------------------------------------------------------------------------------

    async def raise_when_closed(self) -> None:
        """Wait until the stream is closed.

        Raises:
            StreamClosedError: The stream was closed. The method never returns normally.
        """
        await self.closed.wait()
        raise self.gone

    async def wait_released(self, replica: Replica) -> None:
        """Wait until the stream is closed or has left a replica, and none of its frames is on that."""
        while self.replica is replica and not self.closed.is_set():
            await self._left.wait()
        await self.wait_until_idle()

    @property
    def gone(self) -> StreamClosedError:
        """The error of whoever uses the stream after its end."""
        return StreamClosedError(self.close_reason, expired=self.expired)

    async def close(self, reason: str, *, expired: bool = False) -> None:
        """Cancel queued frames, wait for frames on the device, and free the state."""
        self.close_reason, self.expired = reason, expired
        self.closed.set()
        self._left.set()
        self.replica.device.remove_stream(self._load)
        self._cancel_queued()
        await self.wait_until_idle()
        await self._examiner.end()
        self.subscribers.close()
        self.events.close()
        self._session.close()

    def _set_options(self, options: StreamOptions) -> None:
        self.options = options
        self.mode: Mode = options.mode or "lossless"
        self.track = bool(options.track)
        self.hidden = Hidden((options.hidden or ()) if isinstance(options, CameraOptions) else ())
        self.frame_rate = FrameRate(options.max_fps) if options.max_fps else None
        self.masks: Masks = options.masks or "png"
        self.resolution: Resolution = options.resolution or "model"
        self.reliability: Reliability = options.reliability or "none"

    def _open_session(self) -> StreamSession:
        # In the mode `lossless`, the same frames always have the same results.
        number = len(self.replica.device.loads) if self.mode == "latest" else 0
        return StreamSession(
            self.engine,
            self.schedule.open(number),
            self.schedule.max_age,
            self.schedule.overlap,
            eager=self.mode == "latest",
        )

    async def _prepare(self, frame: DecodedFrame) -> None:
        height, width, _ = frame.pixels.shape
        with self.keep_alive():
            try:
                # This may take seconds, so it runs on its own thread and doesn't delay other streams' frames.
                await asyncio.to_thread(self.engine.prepare, height, width)
                self._prepared = frame.pixels.shape
            except TooManySizesError as error:
                self._warn_of_sizes(error)
                raise SizeRefusedError(f"a frame of {width}x{height} isn't processed: {error}", frame.id) from error
            except Exception:
                # Processing the frame tries again, and reports the failure as the frame's error.
                log.exception("stream %s: the engine can't be prepared for %dx%d", self.id, width, height)

    def _warn_of_sizes(self, error: TooManySizesError) -> None:
        if not self._warned_of_sizes:
            self._warned_of_sizes = True
            log.warning("stream %s: %s: allow more by --max-sizes, which takes memory", self.id, error)

    @asynccontextmanager
    async def _single_frame(
        self, decode: Callable[[], DecodedFrame]
    ) -> AsyncIterator[tuple[DecodedFrame, FrameResult]]:
        if self._connected:
            raise StreamConflictError(f"a connection feeds stream {self.id!r}")
        with self.keep_alive():
            async with self._single_frames:
                yield await self._process_single(decode)

    async def _process_single(self, decode: Callable[[], DecodedFrame]) -> tuple[DecodedFrame, FrameResult]:
        try:
            frame = await asyncio.get_running_loop().run_in_executor(self.pool, decode)
            done = await self.submit(frame)
        except FrameRefusedError as error:
            self.subscribers.publish(self.refuse(error))
            raise
        return frame, await self.result(frame, done)

    def _count(self, found: FrameResult, timings: Timings) -> None:
        is_key = found.kind is FrameKind.KEY
        self._frames += 1
        self._key_frames += is_key
        self._last_result = time.monotonic()
        self._statistics.record(timings, found.key_age_seconds, found.reliability, key=is_key)
        self._metrics.count_result(self.engine.bundle.name, found, timings)
        if self._tracer:
            self._tracer.record_frame(self.id, self.engine.bundle.name, found, timings, linked=self._connected)

    def _job_done(self, done: asyncio.Future[FrameResult]) -> None:
        del self._pending[done]
        self._touched = time.monotonic()
        # Reading the exception marks it as retrieved, even if nobody waits for the result any more.
        if not done.cancelled() and done.exception() is None:
            self.replica.device.record(self._load, done.result())

    def _cancel_queued(self) -> None:
        for job in self._pending.values():
            job.cancel()

    def _count_failed(self, error: FrameRefusedError, index: int, received: datetime | None) -> Error:
        self._touched = time.monotonic()
        self._errors += 1
        self._metrics.count_error(self.engine.bundle.name, error.reason)
        if self._tracer:
            self._tracer.record_failed_frame(
                self.id, self.engine.bundle.name, index, error.reason, linked=self._connected
            )
        return self.error(error, index, received)

    def error(self, error: FrameRefusedError, index: int, received: datetime | None) -> Error:
        """Make the response to a frame that isn't processed."""
        return Error(
            problem=error.problem, fatal=False, stream=self.id, time=received, frame=index, run=self.run, id=error.id
        )
