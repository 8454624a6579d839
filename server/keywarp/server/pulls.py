"""Pull streams from their sources, and reconnect when a source fails."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from keywarp.protocol import FrameHeader, StreamState
from keywarp.protocol.messages import Origin
from keywarp.server.decode.sources import SourceDecoder, SourceUrl
from keywarp.server.errors import (
    BadVideoError,
    DrainingError,
    NotPulledError,
    PullError,
    ServerError,
    SourceForbiddenError,
    StreamClosedError,
)
from keywarp.server.security.pull_hosts import AllowList
from keywarp.server.service import Service
from keywarp.server.streams.pipeline import Pipeline, ReceivedPayload
from keywarp.server.streams.pull_status import PullStatus
from keywarp.server.streams.stream import Stream
from keywarp.server.task_scope import task_scope

log = logging.getLogger(__name__)

FIRST_WAIT: Final = 0.5  # seconds before the second attempt; each further wait is twice as long
LONGEST_WAIT: Final = 30.0  # seconds
LONGEST_WAIT_FOR_OPERATOR: Final = 300.0  # seconds, if somebody has to mend the source or its address
# seconds, if the source refuses the password: cameras lock out whoever tries a wrong one a few times
WAITS_WITHOUT_ACCESS: Final = (60.0, 300.0, 1800.0)
JITTER: Final = 0.25  # share of a wait by which it varies


class _PausedError(Exception):
    """The stream was paused."""


class _RenewedError(Exception):
    """The stream has another source or mode, or its model another version."""


class Pulls:
    """All pulled streams."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._allowed = AllowList(service.settings.allow_pull)
        self._pulls: dict[Stream, tuple[Pull, asyncio.Task[bool]]] = {}

    async def check_allowed(self, source: SourceUrl) -> None:
        """Check a source against the allow-list.

        Raises:
            SourceForbiddenError: The source's host isn't on the list.
        """
        await _check_allowed(self._allowed, source)

    def start(
        self, stream: Stream, source: SourceUrl, allowed: AllowList | None = None, *, configured: Origin | None = None
    ) -> asyncio.Task[bool]:
        """Pull a stream until it is removed.

        Args:
            stream: The stream to feed.
            source: The URL to pull.
            allowed: The hosts that may be connected to, or None for the allow-list of the settings.
            configured: Where the camera is configured that is pulled again after a restart of the server, or None.

        Returns:
            The task that pulls, with the result of `Pull.run`.
        """
        pull = Pull(self._service, stream, source, allowed or self._allowed)
        pull.status.kept, pull.status.configured = configured is not None, configured
        task = asyncio.create_task(pull.run())
        self._pulls[stream] = pull, task
        task.add_done_callback(lambda _: self._pulls.pop(stream, None))
        return task

    def get(self, stream: Stream) -> "Pull | None":
        """Return the pull of a stream, or None if there is none."""
        return self._pulls[stream][0] if stream in self._pulls else None

    def __getitem__(self, stream: Stream) -> "Pull":
        """Return the pull of a stream.

        Raises:
            NotPulledError: The stream isn't pulled, or its pull has ended.
        """
        try:
            return self._pulls[stream][0]
        except KeyError:
            raise NotPulledError(f"stream {stream.id!r} isn't pulled by the server") from None

    async def wait_ended(self, stream: Stream) -> None:
        """Wait until the pull of a stream has ended, if it has one. Call it once the stream is removed."""
        if stream in self._pulls:
            await asyncio.wait([self._pulls[stream][1]])

    async def close(self) -> None:
        """Wait until all pulls have ended. Call it while the server stops, which ends them."""
        if tasks := [task for _, task in self._pulls.values()]:
            await asyncio.wait(tasks)


class Pull:
    """Feeds one stream from one source."""

    def __init__(self, service: Service, stream: Stream, source: SourceUrl, allowed: AllowList) -> None:
        self._service = service
        self._stream = stream
        self.source = source
        self._allowed = allowed
        self.status = stream.pull = PullStatus(str(source))
        self._wanted = asyncio.Event()
        self._paused = asyncio.Event()
        self._woken = asyncio.Event()  # ends the wait before a retry
        self._refusals = 0  # refused passwords since the source was last read
        self._wanted.set()

    def pause(self) -> None:
        """Disconnect from the source, and keep the stream."""
        self._wanted.clear()
        self._paused.set()
        self._woken.set()

    def resume(self) -> None:
        """Connect to the source again, now."""
        self._paused.clear()
        self._wanted.set()
        self._woken.set()

    async def check_allowed(self, source: SourceUrl) -> None:
        """Check whether this pull may get another source.

        Raises:
            SourceForbiddenError: The source's host isn't on the allow-list.
        """
        await _check_allowed(self._allowed, source)

    def change_source(self, source: SourceUrl, allowed: AllowList | None = None) -> None:
        """Connect to another source, now; and perhaps with another list of hosts that may be connected to."""
        self.source, self.status.source = source, str(source)
        self._allowed = allowed or self._allowed
        self._refusals = 0
        self._stream.renewal.set()
        self._woken.set()

    async def run(self) -> bool:
        """Pull until the source ends, the stream is closed, or the server stops.

        Returns:
            Whether the source was a file that has ended or broke off, so that pulling it again would repeat it.
        """
        # A pull waits for the network, so it would block the threads that all streams share.
        pool = ThreadPoolExecutor(1, thread_name_prefix="keywarp-pull")
        try:
            guards = self._stream.raise_when_closed(), self._raise_when_draining()
            async with self._stream.connected(), task_scope(*guards):
                await self._pull(pool)
                return True
        except (StreamClosedError, DrainingError) as error:
            log.info("stream %s: the pull ended: %s", self._stream.id, error)
        except Exception:
            log.exception("stream %s: internal error", self._stream.id)
            self._set_state("failed", "the server failed; its log has the details")
        finally:
            pool.shutdown(wait=False)
        return False

    async def _pull(self, pool: Pool) -> None:
        """Pull until the source ends. Retry after every failure, with growing waits."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((PullError, SourceForbiddenError, BadVideoError)),
            wait=self._next_wait,
            sleep=self._wait_to_retry,
            before_sleep=self._report_failure,
        )
        async for attempt in retrying:
            with attempt:
                await self._attempt(attempt.retry_state, pool)

    async def _attempt(self, retry_state: RetryCallState, pool: Pool) -> None:
        """Connect to the source, and feed the stream until the source ends.

        Raises:
            PullError, SourceForbiddenError, BadVideoError: The source failed, or a live source ended.
        """
        while True:
            self._set_state("connecting", keep_problem=True)
            self._stream.renewal.clear()
            await self._stream.restart()
            self._service.move_to_newest(self._stream)
            options = replace(self._service.video_options(self._stream), recorder=self._stream.recorder)
            decoder = SourceDecoder(self.source, self._allowed, self._service.settings.pull_timeout, options)
            fault: ServerError | None = None
            try:
                await self._feed(decoder, pool)
            except _PausedError:
                self._set_state("paused")
                await self._wanted.wait()
                continue
            except _RenewedError:
                continue
            except (PullError, SourceForbiddenError, BadVideoError) as error:
                fault = error
            if self.status.state == "running" or decoder.hopeless:
                retry_state.attempt_number = 1  # so that the next wait is the shortest again
                if not decoder.live:  # reconnecting would start from the beginning
                    self._set_state("failed" if fault else "ended", str(fault) if fault else None)
                    return
            raise fault or PullError("the source ended")

    async def _feed(self, decoder: SourceDecoder, pool: Pool) -> None:
        """Feed the stream until the source ends, fails, is paused or is to be opened again."""
        pipeline = Pipeline(self._stream, decoder, self._stream.owner, pool, decoder.stop)
        try:
            async with task_scope(self._raise_when_paused(), self._raise_when_renewed()) as tasks:
                tasks.create_task(pipeline.feed(_start()))
                async for response in pipeline.responses():
                    if response and self.status.state != "running":
                        self._refusals = 0
                        self._set_state("running")
        finally:
            await pipeline.close()
            await self._stream.end_events()

    def _next_wait(self, retry_state: RetryCallState) -> float:
        assert retry_state.outcome is not None
        error = retry_state.outcome.exception()
        self._refusals += isinstance(error, PullError) and error.unauthorized
        return next_wait(error, retry_state.attempt_number, self._refusals)

    def _report_failure(self, retry_state: RetryCallState) -> None:
        assert retry_state.outcome is not None
        error, wait = retry_state.outcome.exception(), retry_state.upcoming_sleep
        if isinstance(error, PullError) and error.unauthorized:
            soon = f"{wait / 60:.0f} min" if wait >= 60 else f"{wait:.0f} s"
            problem = f"{error}; the next attempt is in about {soon}, because cameras lock out who tries often"
            self._set_state("unauthorized", problem, wait=wait)
        else:
            self._set_state("retrying", str(error), wait=wait)
        self._service.metrics.count_pull_failure()

    async def _wait_to_retry(self, seconds: float) -> None:
        """Wait before a retry. `pause` and `resume` end the wait."""
        self._woken.clear()
        if not self._paused.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):  # `wait_for` may swallow a cancellation (Python 3.11)
                    await self._woken.wait()
        self.status.reconnects += 1

    def _set_state(
        self, state: StreamState, problem: str | None = None, *, wait: float | None = None, keep_problem: bool = False
    ) -> None:
        """Set and log the state.

        Args:
            state: The state.
            problem: What is wrong.
            wait: The seconds up to the next attempt.
            keep_problem: Whether what was wrong before is still the last that is known.
        """
        self.status.state = state
        if not keep_problem:
            self.status.problem = problem
        level = logging.WARNING if problem else logging.INFO
        when = "" if wait is None else f" in {wait:.1f} s"
        reason = f": {problem}" * bool(problem)
        log.log(level, "stream %s, pulled from %s: %s%s%s", self._stream.id, self.source, state, when, reason)

    async def _raise_when_paused(self) -> None:
        await self._paused.wait()
        raise _PausedError

    async def _raise_when_renewed(self) -> None:
        await self._stream.renewal.wait()
        raise _RenewedError

    async def _raise_when_draining(self) -> None:
        await self._service.draining.wait()
        raise DrainingError("the server stops")


def next_wait(error: BaseException | None, attempts: int, refusals: int = 0) -> float:
    """Return the seconds up to the next attempt, varied so that pulls don't all reconnect at once after a failure.

    Args:
        error: Why the last attempt failed.
        attempts: The attempts so far, at least 1.
        refusals: How many of them failed because the source refused the password.
    """
    jitter = random.uniform(1 - JITTER, 1 + JITTER)
    if isinstance(error, PullError) and error.unauthorized:
        return WAITS_WITHOUT_ACCESS[min(max(refusals, 1), len(WAITS_WITHOUT_ACCESS)) - 1] * jitter
    lasting = isinstance(error, SourceForbiddenError) or (isinstance(error, PullError) and error.lasting)
    # A camera that starts may serve its web page for a while: a wait that has grown is hardly longer than that was.
    longest = LONGEST_WAIT_FOR_OPERATOR if lasting else LONGEST_WAIT
    return min(FIRST_WAIT * 2.0 ** min(attempts - 1, 32), longest) * jitter


async def _check_allowed(allowed: AllowList, source: SourceUrl) -> None:
    with suppress(PullError):  # the host's name can't be resolved now, but may be later
        await asyncio.to_thread(allowed.addresses, source.host, source.port)


async def _start() -> AsyncIterator[ReceivedPayload]:
    yield ReceivedPayload(FrameHeader(), memoryview(b""), time.monotonic())
