"""Streams that the server pulls by itself, and goes on pulling, whatever happens to their sources."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from keywarp.protocol import FrameHeader, StreamState
from keywarp.server.decode.sources import Source, SourceDecoder
from keywarp.server.errors import (
    BadVideoError,
    DrainingError,
    NotPulledError,
    ServerError,
    SiteError,
    SourceError,
    SourceForbiddenError,
    StreamGoneError,
)
from keywarp.server.security.pull_hosts import AllowList
from keywarp.server.service import Service
from keywarp.server.streams.pipeline import Arrived, Pipeline, beside
from keywarp.server.streams.stream import Origin, Stream

log = logging.getLogger(__name__)

FIRST_WAIT: Final = 0.5  # seconds, after the first failure
LONGEST_WAIT: Final = 30.0  # seconds; each wait is twice the one before
JITTER: Final = 0.25  # of a wait: so that a switch that comes back doesn't meet all cameras' pulls at once


class _PausedError(Exception):
    """The stream is to be left alone."""


class Pulls:
    """All pulled streams."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._allowed = AllowList(service.settings.allow_pull)
        self._pulls: dict[Stream, tuple[Pull, asyncio.Task[None]]] = {}

    async def check(self, source: Source) -> None:
        """Refuse what the allow-list doesn't have.

        Raises:
            SourceForbiddenError: It hasn't.
        """
        with suppress(SourceError):  # its name isn't known now, but may be later
            await asyncio.to_thread(self._allowed.addresses, source.host, source.port)

    async def start_site(self) -> None:
        """Pull the operator's own streams, once the models are ready. Their hosts needn't be in the allow-list."""
        await self._service.loaded.wait()
        if self._service.failure:
            return
        try:
            for name, planned in self._service.site.streams.items():
                source = Source.parse(planned.source)
                stream = self._service.create_stream(source.suited(planned), name)
                self.start(stream, source, AllowList(self._service.settings.allow_pull, trusted=source.host))
        except DrainingError:
            return
        except ServerError as error:
            self._service.failure = SiteError(f"{self._service.settings.site}: streams.{name}: {error}")

    def start(self, stream: Stream, source: Source, allowed: AllowList | None = None) -> None:
        """Pull a stream, from now on until it is removed; `allowed`: another allow-list than everybody's."""
        pull = Pull(self._service, stream, source, allowed or self._allowed)
        task = asyncio.create_task(pull.run())
        self._pulls[stream] = pull, task
        task.add_done_callback(lambda _: self._pulls.pop(stream, None))

    def __getitem__(self, stream: Stream) -> "Pull":
        """The pull of a stream.

        Raises:
            NotPulledError: It isn't pulled, or not any more.
        """
        try:
            return self._pulls[stream][0]
        except KeyError:
            raise NotPulledError(f"stream {stream.id!r} isn't pulled by the server") from None

    async def close(self) -> None:
        """Wait until all have ended; their streams are gone, or the server stops."""
        if tasks := [task for _, task in self._pulls.values()]:
            await asyncio.wait(tasks)


class Pull:
    """Feeds one stream from one source."""

    def __init__(self, service: Service, stream: Stream, source: Source, allowed: AllowList) -> None:
        self._service = service
        self._stream = stream
        self._source = source
        self._allowed = allowed
        self._origin = stream.origin = Origin(str(source))
        self._wanted = asyncio.Event()
        self._paused = asyncio.Event()
        self._wanted.set()

    def pause(self) -> None:
        """Let go of the source, and keep the stream."""
        self._wanted.clear()
        self._paused.set()

    def resume(self) -> None:
        """Pull again."""
        self._paused.clear()
        self._wanted.set()

    async def run(self) -> None:
        """Pull until the source ends by itself, the stream is gone, or the server stops."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="keywarp-pull")  # of its own: it waits for the network
        try:
            async with self._stream.connected(), beside(self._stream.watch(), self._watch_server()):
                await self._pull(pool)
        except (StreamGoneError, DrainingError) as error:
            log.info("stream %s: pulled no more: %s", self._stream.id, error)
        except Exception:
            log.exception("stream %s: a fault of the server", self._stream.id)
            self._tell("failed", "the server failed: its log says more")
        finally:
            pool.shutdown(wait=False)

    async def _pull(self, pool: Pool) -> None:
        wait = FIRST_WAIT
        while True:
            self._tell("connecting")
            settings, nvdec = self._service.settings, self._service.nvdec
            decoder = SourceDecoder(self._source, self._allowed, settings.pull_timeout, settings.max_pixels, nvdec)
            broken = True
            try:
                await self._attempt(decoder, pool)
                problem, broken = "the source ended", False
            except _PausedError:
                self._tell("paused")
                await self._wanted.wait()
                continue
            except (SourceError, SourceForbiddenError, BadVideoError) as error:
                problem = str(error)
            if self._origin.state == "running":
                wait = FIRST_WAIT
                if not decoder.live:  # again it would begin anew
                    self._tell(*(("failed", problem) if broken else ("ended", None)))
                    return
            self._tell("retrying", problem)
            self._service.metrics.count_pull_failure()
            seconds = wait * random.uniform(1 - JITTER, 1 + JITTER)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):  # `wait_for` may take a cancellation for its own (Python 3.11)
                    await self._paused.wait()
            wait = min(2 * wait, LONGEST_WAIT)
            self._origin.reconnects += 1

    async def _attempt(self, decoder: SourceDecoder, pool: Pool) -> None:
        """Pull until the source ends or breaks off."""
        await self._stream.restart()
        pipeline = Pipeline(self._service, self._stream, decoder, self._stream.owner, pool, decoder.stop)
        try:
            async with beside(self._watch_pause()) as tasks:
                tasks.create_task(pipeline.decode(_start()))
                async for answer in pipeline.answers():
                    if answer and self._origin.state != "running":
                        self._tell("running")
        finally:
            await pipeline.close()

    def _tell(self, state: StreamState, problem: str | None = None) -> None:
        self._origin.state, self._origin.problem = state, problem
        level = logging.WARNING if problem else logging.INFO
        log.log(
            level,
            "stream %s, pulled from %s: %s%s",
            self._stream.id,
            self._source,
            state,
            f": {problem}" * bool(problem),
        )

    async def _watch_pause(self) -> None:
        await self._paused.wait()
        raise _PausedError

    async def _watch_server(self) -> None:
        await self._service.draining.wait()
        raise DrainingError("the server stops")


async def _start() -> AsyncIterator[Arrived]:
    yield Arrived(FrameHeader(), memoryview(b""), time.monotonic())
