"""The service: everything that lives as long as the server does."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from keywarp.engines import BundleError, EngineError
from keywarp.protocol import StreamOptions
from keywarp.server.config import read_site
from keywarp.server.decode.nvdec import Nvdec, open_nvdec
from keywarp.server.devices import Device, find_devices
from keywarp.server.errors import (
    DecoderError,
    DrainingError,
    InternalError,
    NotReadyError,
    OverloadError,
    TooManyStreamsError,
)
from keywarp.server.models.registry import Models
from keywarp.server.models.replicas import least_loaded
from keywarp.server.models.repository import find_bundles
from keywarp.server.security.quotas import UNLIMITED, Quota
from keywarp.server.settings import Settings
from keywarp.server.sinks.dispatch import Sinks
from keywarp.server.streams.registry import Streams
from keywarp.server.streams.schedule import settle
from keywarp.server.streams.stream import Stream, Workshop
from keywarp.server.telemetry.metrics import Metrics
from keywarp.server.telemetry.traces import open_traces

if TYPE_CHECKING:
    from keywarp.server.telemetry.spans import Traces

log = logging.getLogger(__name__)


class Service:
    """Models, streams and the threads that work for them; loading, then ready, then draining."""

    def __init__(self, settings: Settings) -> None:
        """Check the bundles; nothing runs before `running`.

        Raises:
            BundleError: A bundle can't be used, or there is none, or not the default one, or not one that is limited.
            SiteError: The file of streams and sinks can't be used.
            DecoderError: The GPU can't decode video, though it is to.
            TracesError: Traces can't be exported.
        """
        self.settings = settings
        self.streams = Streams(settings.max_streams, settings.idle_timeout)
        self.failure: Exception | None = None  # why the models can't be loaded
        self.loaded = asyncio.Event()  # the models are ready, or there is a failure
        self.draining = asyncio.Event()
        self._bundles = find_bundles(settings.models, keep=settings.controlled)
        names = [bundle.name for bundle in self._bundles]
        limited = () if settings.controlled else settings.model_limit  # they may come later
        for name in filter(None, (settings.default_model, *limited)):
            if name not in names:
                raise BundleError(f"there is no model {name!r}; there are: {', '.join(names)}")
        self.nvdec = self._open_nvdec()
        self.devices: tuple[Device, ...] = ()  # that have the models, once these are loaded
        self.metrics = Metrics(lambda: len(self.streams), lambda: self.devices, lambda: self._models.count())
        self._models = Models(
            settings, settings.default_model or names[0], self.streams, self.refuse_if_draining, self.metrics.loaded
        )
        self._ready = False
        # Decoding releases the GIL: as many threads as cores, and one so that a slow image delays no other stream.
        pool = ThreadPoolExecutor((os.cpu_count() or 1) + 1, thread_name_prefix="keywarp-codec")
        traces = open_traces() if settings.traces else None
        self._workshop = Workshop(pool, self.metrics, traces)
        self.site = read_site(settings.site)
        self.sinks = Sinks(self.site.open_sinks(), self.metrics)
        self._conversations = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def pool(self) -> Pool:
        """Threads for short work that would hold up the event loop."""
        return self._workshop.pool

    @property
    def traces(self) -> "Traces | None":
        """What tells of requests and frames, if anything does."""
        return self._workshop.traces

    @property
    def models(self) -> Models:
        """The models.

        Raises:
            NotReadyError: They are still being loaded.
            InternalError: They can't be.
        """
        if self.failure:
            raise InternalError("the models could not be loaded: see the server's log")
        if not self._ready:
            raise NotReadyError("the models are still being loaded: try again in a few seconds")
        return self._models

    def refuse_if_draining(self) -> None:
        """Raise `DrainingError` if the server takes nothing new."""
        if self.draining.is_set():
            raise DrainingError("the server stops: connect again in a few seconds")

    def create_stream(self, options: StreamOptions, id_: str | None, owner: Quota = UNLIMITED) -> Stream:
        """Add a stream.

        Args:
            options: What is asked for.
            id_: None: a random one.
            owner: Of the key that asks for it; the operator's own streams have none.

        Raises:
            ServerError: See `models`, `Models.__getitem__`, `settle`, `Streams.create`, `refuse_if_draining`.
            TooManyStreamsError: The model or the key has as many as the settings allow.
            OverloadError: No device can serve more.
        """
        self.refuse_if_draining()
        manifest = self.models[options.model].bundle.manifest
        self._refuse_over_limits(manifest.name, owner)
        replica = least_loaded(self.models.replicas(manifest.name))
        if replica.device.pressure.is_high:
            raise OverloadError("the device can't serve more streams than there are: try again later")
        pacing = settle(options, self.settings.schedule, manifest.key_interval)
        self.sinks.check(options.sinks or ())
        stream = self.streams.create(id_, replica, pacing, options, self._workshop, owner)
        self.sinks.follow(stream, stream.sinks)
        return stream

    @contextmanager
    def conversation(self) -> Iterator[None]:
        """Whatever `drain` must wait for."""
        self._conversations += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._conversations -= 1
            if not self._conversations:
                self._quiet.set()

    async def drain(self) -> None:
        """Take nothing new, and wait for what is under way, at most the time that the settings allow."""
        self.draining.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_timeout):
                await self._quiet.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load the models in the background, and free everything at the end."""
        tasks = asyncio.create_task(self._load()), asyncio.create_task(self.streams.expire())
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.streams.close()
            await self.sinks.close()
            await self._models.close()
            for device in self.devices:
                await asyncio.to_thread(device.executor.close)
            self._workshop.pool.shutdown(wait=True)
            if self.traces:
                await asyncio.to_thread(self.traces.close)

    def _open_nvdec(self) -> Nvdec | None:
        if self.settings.decoder == "software":
            return None
        try:
            return open_nvdec()
        except DecoderError as error:
            if not self.settings.cpu_fallback:
                raise
            log.warning("%s: the processor decodes", error)
            return None

    def _refuse_over_limits(self, model: str, owner: Quota) -> None:
        limit = self.settings.model_limit.get(model)
        if limit is not None and sum(stream.engine.bundle.name == model for stream in self.streams) >= limit:
            detail = f"model {model!r} has its {limit} streams: delete one, or try again later"
            raise TooManyStreamsError(detail, "model_limit")
        limit = owner.limits.streams
        if limit is not None and sum(stream.owner is owner for stream in self.streams) >= limit:
            detail = f"the API key {owner.name} has its {limit} streams: delete one, or try again later"
            raise TooManyStreamsError(detail, "key_streams")

    async def _load(self) -> None:
        try:
            self.devices = await asyncio.to_thread(find_devices, self.settings)
            await self._models.start(self._bundles, self.devices)
        except Exception as error:
            unexpected = not isinstance(error, EngineError)
            log.error("the models can't be loaded: %s", error, exc_info=unexpected)
            self.failure = error
        else:
            self._bundles = ()  # what is kept of them is freed with their engines
            self._ready = True
            log.info("ready: %s", ", ".join(engine.bundle.name for engine in self._models))
        self.loaded.set()
