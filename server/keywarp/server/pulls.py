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

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from keywarp.protocol import FrameHeader, StreamState
from keywarp.server.decode.sources import SourceDecoder, SourceUrl
from keywarp.server.errors import (
    BadVideoError,
    DrainingError,
    NotPulledError,
    PullError,
    ServerError,
    SiteError,
    SourceForbiddenError,
    StreamClosedError,
)
from keywarp.server.security.pull_hosts import AllowList
from keywarp.server.service import Service
from keywarp.server.streams.pipeline import Pipeline, ReceivedPayload
from keywarp.server.streams.stream import PullStatus, Stream
from keywarp.server.task_scope import task_scope

log = logging.getLogger(__name__)

FIRST_WAIT: Final = 0.5  # seconds before the second attempt; each further wait is twice as long
LONGEST_WAIT: Final = 30.0  # seconds
LONGEST_WAIT_FOR_OPERATOR: Final = 300.0  # seconds, if somebody has to mend the source or its address
JITTER: Final = 0.25  # share of a wait by which it varies


class _PausedError(Exception):
    """The stream was paused."""


class Pulls:
    """All pulled streams."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._allowed = AllowList(service.settings.allow_pull)
        self._pulls: dict[Stream, tuple[Pull, asyncio.Task[None]]] = {}

    async def check_allowed(self, source: SourceUrl) -> None:
        """Check a source against the allow-list.

        Raises:
            SourceForbiddenError: The source's host isn't on the list.
        """
        with suppress(PullError):  # the host's name can't be resolved now, but may be later
            await asyncio.to_thread(self._allowed.addresses, source.host, source.port)

    async def start_site(self) -> None:
        """Pull the operator's own streams, once the models are ready. Their hosts needn't be on the allow-list."""
        await self._service.loaded.wait()
        if self._service.failure:
            return
        try:
            for name, planned in self._service.site.streams.items():
                source = SourceUrl.parse(planned.source)
                stream = self._service.create_stream(source.with_default_mode(planned), name)
                await self._service.watch_stream(stream, planned)
                self.start(stream, source, AllowList(self._service.settings.allow_pull, trusted=source.host))
        except DrainingError:
            return
        except ServerError as error:
            self._service.failure = SiteError(f"{self._service.settings.site}: streams.{name}: {error}")

    def start(self, stream: Stream, source: SourceUrl, allowed: AllowList | None = None) -> None:
        """Pull a stream until it is removed.

        Args:
            stream: The stream to feed.
            source: The URL to pull.
            allowed: The hosts that may be connected to, or None for the allow-list of the settings.
        """
        pull = Pull(self._service, stream, source, allowed or self._allowed)
        task = asyncio.create_task(pull.run())
        self._pulls[stream] = pull, task
        task.add_done_callback(lambda _: self._pulls.pop(stream, None))

    def __getitem__(self, stream: Stream) -> "Pull":
        """Return the pull of a stream.

        Raises:
            NotPulledError: The stream isn't pulled, or its pull has ended.
        """
        try:
            return self._pulls[stream][0]
        except KeyError:
            raise NotPulledError(f"stream {stream.id!r} isn't pulled by the server") from None

    async def close(self) -> None:
        """Wait until all pulls have ended. Call it while the server stops, which ends them."""
        if tasks := [task for _, task in self._pulls.values()]:
            await asyncio.wait(tasks)


class Pull:
    """Feeds one stream from one source."""

    def __init__(self, service: Service, stream: Stream, source: SourceUrl, allowed: AllowList) -> None:
        self._service = service
        self._stream = stream
        self._source = source
        self._allowed = allowed
        self._status = stream.pull = PullStatus(str(source))
        self._wanted = asyncio.Event()
        self._paused = asyncio.Event()
        self._wanted.set()

    def pause(self) -> None:
        """Disconnect from the source, and keep the stream."""
        self._wanted.clear()
        self._paused.set()

    def resume(self) -> None:
        """Connect to the source again."""
        self._paused.clear()
        self._wanted.set()

    async def run(self) -> None:
        """Pull until the source ends, the stream is closed, or the server stops."""
        # A pull waits for the network, so it would block the threads that all streams share.
        pool = ThreadPoolExecutor(1, thread_name_prefix="keywarp-pull")
        try:
            guards = self._stream.raise_when_closed(), self._raise_when_draining()
            async with self._stream.connected(), task_scope(*guards):
                await self._pull(pool)
        except (StreamClosedError, DrainingError) as error:
            log.info("stream %s: the pull ended: %s", self._stream.id, error)
        except Exception:
            log.exception("stream %s: internal error", self._stream.id)
            self._set_state("failed", "the server failed; its log has the details")
        finally:
            pool.shutdown(wait=False)

    async def _pull(self, pool: Pool) -> None:
        """Pull until the source ends. Retry after every failure, with growing waits."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((PullError, SourceForbiddenError, BadVideoError)),
            wait=next_wait,
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
            options = replace(self._service.video_options(self._stream), recorder=self._stream.recorder)
            decoder = SourceDecoder(self._source, self._allowed, self._service.settings.pull_timeout, options)
            fault: ServerError | None = None
            try:
                await self._feed(decoder, pool)
            except _PausedError:
                self._set_state("paused")
                await self._wanted.wait()
                continue
            except (PullError, SourceForbiddenError, BadVideoError) as error:
                fault = error
            if self._status.state == "running" or decoder.hopeless:
                retry_state.attempt_number = 1  # so that the next wait is the shortest again
                if not decoder.live:  # reconnecting would start from the beginning
                    self._set_state("failed" if fault else "ended", str(fault) if fault else None)
                    return
            raise fault or PullError("the source ended")

    async def _feed(self, decoder: SourceDecoder, pool: Pool) -> None:
        """Feed the stream until the source ends, fails, or is paused."""
        await self._stream.restart()
        pipeline = Pipeline(self._stream, decoder, self._stream.owner, pool, decoder.stop)
        try:
            async with task_scope(self._raise_when_paused()) as tasks:
                tasks.create_task(pipeline.feed(_start()))
                async for response in pipeline.responses():
                    if response and self._status.state != "running":
                        self._set_state("running")
        finally:
            await pipeline.close()
            await self._stream.end_events()

    def _report_failure(self, retry_state: RetryCallState) -> None:
        assert retry_state.outcome is not None
        self._set_state("retrying", str(retry_state.outcome.exception()), wait=retry_state.upcoming_sleep)
        self._service.metrics.count_pull_failure()

    async def _wait_to_retry(self, seconds: float) -> None:
        """Wait before a retry. A pause of the stream ends the wait."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # `wait_for` may swallow a cancellation (Python 3.11)
                await self._paused.wait()
        self._status.reconnects += 1

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
        self._status.state = state
        if not keep_problem:
            self._status.problem = problem
        level = logging.WARNING if problem else logging.INFO
        when = "" if wait is None else f" in {wait:.1f} s"
        reason = f": {problem}" * bool(problem)
        log.log(level, "stream %s, pulled from %s: %s%s%s", self._stream.id, self._source, state, when, reason)

    async def _raise_when_paused(self) -> None:
        await self._paused.wait()
        raise _PausedError

    async def _raise_when_draining(self) -> None:
        await self._service.draining.wait()
        raise DrainingError("the server stops")


def next_wait(retry_state: RetryCallState) -> float:
    """Return the seconds up to the next attempt, varied so that pulls don't all reconnect at once after a failure."""
    error = retry_state.outcome and retry_state.outcome.exception()
    lasting = isinstance(error, SourceForbiddenError) or (isinstance(error, PullError) and error.lasting)
    # A camera that starts may serve its web page for a while: a wait that has grown is hardly longer than that was.
    longest = LONGEST_WAIT_FOR_OPERATOR if lasting else LONGEST_WAIT
    return wait_exponential(multiplier=FIRST_WAIT, max=longest)(retry_state) * random.uniform(1 - JITTER, 1 + JITTER)


async def _start() -> AsyncIterator[ReceivedPayload]:
    yield ReceivedPayload(FrameHeader(), memoryview(b""), time.monotonic())
