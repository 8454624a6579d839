"""The service: it creates and connects everything that lives as long as the server."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor as Pool
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

from keywarp.engines import BundleError, EngineError
from keywarp.engines.manifest import Manifest
from keywarp.protocol import StreamOptions
from keywarp.protocol.events import Rules
from keywarp.server.decode.hwaccel import KINDS, Hardware, Hwaccel, open_hwaccel
from keywarp.server.decode.memory import limit_allocations
from keywarp.server.decode.nvdec import Nvdec, open_nvdec
from keywarp.server.decode.video import VideoOptions
from keywarp.server.devices import Device, find_devices
from keywarp.server.errors import (
    BadMessageError,
    DecoderError,
    DrainingError,
    InternalError,
    NotReadyError,
    OverloadError,
    ServerError,
    SiteError,
    TooManyStreamsError,
)
from keywarp.server.events.store import EventStore
from keywarp.server.events.watcher import check_rules
from keywarp.server.fleet import Fleet
from keywarp.server.models.registry import Models, ModelUser
from keywarp.server.models.replicas import Replica, least_loaded
from keywarp.server.models.repository import load_bundles
from keywarp.server.payload_memory import PayloadMemory
from keywarp.server.security.keys import ApiKeys
from keywarp.server.security.quotas import UNLIMITED, Limits, Quota
from keywarp.server.settings import Settings
from keywarp.server.sinks.delivery import DEFAULT_POLICY, DeliveryPolicy, Sinks
from keywarp.server.site import read_site
from keywarp.server.streams.context import StreamContext
from keywarp.server.streams.registry import StreamRegistry
from keywarp.server.streams.schedule import ScheduleOptions, resolve_schedule
from keywarp.server.streams.stream import Stream
from keywarp.server.telemetry.metrics import Metrics
from keywarp.server.telemetry.traces import open_tracer
from keywarp.server.workers import Workers

if TYPE_CHECKING:
    from keywarp.server.telemetry.tracer import Tracer

log = logging.getLogger(__name__)


class Service:
    """Holds the models, the streams and their threads. The service is first loading, then ready, then draining."""

    def __init__(
        self,
        settings: Settings,
        *,
        find_devices: Callable[[Settings], tuple[Device, ...]] = find_devices,
        delivery: DeliveryPolicy = DEFAULT_POLICY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check the bundles and the settings. Nothing runs before `running`.

        Args:
            settings: The operator's settings.
            find_devices: Returns the devices that frames are processed on.
            delivery: How responses are delivered to sinks.
            clock: Returns the monotonic seconds by which the rates of API keys are counted.

        Raises:
            KeyFileError: The API keys can't be read.
            BundleError: A bundle can't be used, there are no bundles, or the settings name a model that doesn't exist.
            SiteError: The file of streams and sinks can't be used.
            EventStoreError: The database of events can't be opened.
            DecoderError: The settings ask for the GPU to decode video, and it can't.
            TracesError: Traces can't be exported.
        """
        self.settings = settings
        self._find_devices = find_devices
        self.streams = StreamRegistry(settings.max_streams, settings.idle_timeout)
        self.failure: Exception | None = None  # why the models or the site's streams couldn't be started
        self.loaded = asyncio.Event()  # set when the models are ready, or loading them failed
        self.draining = asyncio.Event()
        self._bundles = load_bundles(settings.models, keep=settings.controlled)
        names = [bundle.name for bundle in self._bundles]
        limited = () if settings.controlled else settings.model_limit  # others may be loaded later
        for name in filter(None, (settings.default_model, *limited)):
            if name not in names:
                raise BundleError(f"there is no model {name!r}; there are: {', '.join(names)}")
        limit_allocations(settings.max_pixels)
        self.nvdec, self.hwaccel = self._open_decoder()
        self.devices: tuple[Device, ...] = ()  # empty until the devices are found
        self.metrics = Metrics(
            lambda: len(self.streams),
            lambda: [device.reading for device in self.devices],
            lambda: self._models.count_versions(),
        )
        self._models = Models(
            settings,
            settings.default_model or names[0],
            self._model_users,
            self.refuse_if_draining,
            self.metrics.count_load,
        )
        self._ready = False
        # Decoding releases the GIL, so each core gets a thread. One more keeps slow images from delaying other streams.
        workers = Workers((os.cpu_count() or 1) + 1, "keywarp-codec")
        tracer = open_tracer() if settings.traces else None
        self.site = read_site(settings.site)
        self._check_site()
        self.events = EventStore(
            settings.data, settings.event_days, settings.max_events, self.metrics.count_event_writes
        )
        self._pool = workers.share()
        self._context = StreamContext(workers, self.metrics, self.events, tracer)
        self.sinks = Sinks(self.site.open_sinks(), self.metrics, delivery)
        for name in self.site.sinks:
            self.metrics.add_sink(name)
        limits = Limits(streams=settings.key_streams, rate=settings.key_rate)
        self.api_keys = ApiKeys.read(settings.keys, limits, clock) if settings.keys else None
        self.fleet = Fleet(settings.peer)
        self.payload_memory = PayloadMemory(settings.max_queued_bytes)
        self._in_flight = 0
        self._all_done = asyncio.Event()
        self._all_done.set()

    @property
    def pool(self) -> Pool:
        """Threads for short work that would block the event loop."""
        return self._pool

    def video_options(self, stream: Stream) -> VideoOptions:
        """Return how the videos of a stream are decoded."""
        return VideoOptions(
            self.settings.max_pixels,
            self.nvdec,
            stream.engine.frames if self.nvdec else None,
            self.hwaccel,
            vectors=stream.engine.takes_vectors,
            upright=stream.upright,
            video=stream.video,
        )

    @property
    def tracer(self) -> "Tracer | None":
        """The exporter of traces, or None if the settings ask for no traces."""
        return self._context.tracer

    @property
    def models(self) -> Models:
        """The models.

        Raises:
            NotReadyError: The models are still being loaded.
            InternalError: The models could not be loaded.
        """
        if self.failure:
            raise InternalError("the models could not be loaded: see the server's log")
        if not self._ready:
            raise NotReadyError("the models are still being loaded: try again in a few seconds")
        return self._models

    def check_ready(self) -> None:
        """Check that streams can be created.

        Raises:
            DrainingError: The server is draining.
            NotReadyError: The models are still being loaded.
            InternalError: The models could not be loaded.
        """
        self.refuse_if_draining()
        _ = self.models

    def refuse_if_draining(self) -> None:
        """Raise `DrainingError` if the server accepts no new work."""
        if self.draining.is_set():
            raise DrainingError("the server stops: connect again in a few seconds")

    def create_stream(self, options: StreamOptions, id_: str | None, owner: Quota = UNLIMITED) -> Stream:
        """Create a stream, if the limits and the device's load allow it.

        Args:
            options: The options that the client asks for.
            id_: The stream's id, or None for a random one.
            owner: The quota of the API key that asks for the stream. The operator's own streams have no limits.

        Raises:
            DrainingError, NotReadyError, InternalError: The server accepts no streams now.
            UnknownModelError: There is no such model.
            BadMessageError: The options contradict each other, or name a sink that doesn't exist.
            StreamConflictError: There is already a stream with this id.
            TooManyStreamsError: The limit of the server, the model or the API key is reached.
            OverloadError: No device can serve more streams.
        """
        self.refuse_if_draining()
        manifest = self.models[options.model].bundle.manifest
        self._refuse_over_limits(manifest.name, owner)
        replica = least_loaded(self.models.replicas(manifest.name))
        if replica.device.pressure.is_high:
            raise OverloadError("the device can't serve more streams: try again later")
        schedule = self._resolve_schedule(options, replica)
        self._check_track(options, manifest)
        self.sinks.check(options.sinks or ())
        stream = self.streams.create(id_, replica, schedule, options, self._context, owner)
        self.sinks.subscribe(stream, stream.sinks)
        return stream

    async def change_stream(self, stream: Stream, options: StreamOptions) -> None:
        """Give a running stream other options.

        Raises:
            BadMessageError: The options contradict each other. The stream stays as it is.
        """
        self._check_track(options, stream.engine.bundle.manifest)
        await stream.change(options, self._resolve_schedule(options, stream.replica))

    def move_to_newest(self, stream: Stream) -> None:
        """Move an idle stream to the newest version of its model, unless that is unloaded, or lacks what rules name."""
        try:
            replicas = self.models.replicas(stream.engine.bundle.name)
            if stream.replica in replicas:
                return
            replica = least_loaded(replicas)
            manifest = replica.engine.bundle.manifest
            self._check_track(stream.options, manifest)
            stream.move(replica, self._resolve_schedule(stream.options, replica))
        except ServerError as error:
            log.error("stream %s stays with its version of the model: %s", stream.id, error)
            return
        log.info("stream %s goes on with version %s of %s", stream.id, manifest.version, manifest.name)

    def _resolve_schedule(self, options: StreamOptions, replica: Replica) -> ScheduleOptions:
        return resolve_schedule(
            options,
            self.settings.schedule,
            replica.engine.bundle.manifest.key_interval,
            self.settings.max_age,
            self.settings.overlap,
        )

    def _check_track(self, options: StreamOptions, manifest: Manifest) -> None:
        if options.track and manifest.detection is None:
            raise BadMessageError(f"`track` needs a model that detects objects, and {manifest.name!r} doesn't")

    def check_rules(self, stream: Stream, rules: Rules) -> None:
        """Check that a stream can be watched by rules.

        Raises:
            BadMessageError: The stream's model has no such class, or there is no such sink.
        """
        self.sinks.check(rules.events, events=True)
        check_rules(rules, stream.engine.bundle.manifest)

    async def watch_stream(self, stream: Stream, rules: Rules) -> None:
        """Watch a stream by rules from now on, instead of those before, whose events end.

        Raises:
            BadMessageError: The stream's model has no such class, or there is no such sink.
        """
        self.sinks.check(rules.events, events=True)
        await stream.watch(rules)
        await self.sinks.subscribe_events(stream)

    async def create_watched(
        self, options: StreamOptions, id_: str | None, rules: Rules, owner: Quota = UNLIMITED
    ) -> Stream:
        """Create a stream that rules watch from its first frame on. It raises the errors of `create_stream`.

        Raises:
            BadMessageError: The stream's model has no such class, or there is no such sink. There is no stream then.
        """
        stream = self.create_stream(options, id_, owner)
        if rules == Rules():
            return stream
        try:
            await self.watch_stream(stream, rules)
        except ServerError as error:
            await self.streams.remove(stream, str(error))
            raise
        return stream

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a request or connection that `drain` must wait for."""
        self._in_flight += 1
        self._all_done.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._all_done.set()

    async def drain(self) -> None:
        """Accept no new work, and wait for requests and connections, at most for `drain_timeout`."""
        self.draining.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_timeout):
                await self._all_done.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load the models in the background, run the block, and free everything at the end."""
        endless = self.streams.expire(), self.streams.release_memory()
        tasks = [asyncio.create_task(task) for task in (self._load(), *endless)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.sinks.stop()
            await self.streams.close()
            await self.sinks.close()
            await self._models.close()
            await self.events.close()
            await self.fleet.close()
            for device in self.devices:
                await asyncio.to_thread(device.executor.close)
            await asyncio.to_thread(self._context.workers.shutdown)
            if self.tracer:
                await asyncio.to_thread(self.tracer.close)

    def _model_users(self) -> list[ModelUser]:
        return [
            ModelUser(
                stream.replica,
                partial(stream.wait_released, stream.replica),
                partial(self.streams.remove, stream),
                stream.renewal.set,
            )
            for stream in self.streams
        ]

    def _check_site(self) -> None:
        """Check that the models have the classes that the site's rules and sinks name.

        Raises:
            SiteError: One of them has no such class.
        """
        manifests = {bundle.name: bundle.manifest for bundle in self._bundles}
        for name, planned in self.site.streams.items():
            model = manifests.get(planned.model or self.settings.default_model or next(iter(manifests)))
            if model is None:  # it may be loaded later; if not, the stream can't be created
                continue
            try:
                check_rules(planned, model)
            except BadMessageError as error:
                raise SiteError(f"{self.settings.site}: streams.{name}: {error}") from error
        known = {info.name for manifest in manifests.values() for info in manifest.classes}
        for name, sink in self.site.sinks.items():
            for one in sink.classes:
                if one not in known and not self.settings.controlled:
                    raise SiteError(
                        f"{self.settings.site}: sinks.{name}: no model has a class {one!r}; there are: "
                        f"{', '.join(sorted(known))}"
                    )

    def _open_decoder(self) -> tuple[Nvdec | None, Hwaccel | None]:
        """Open the hardware that decodes video, if there is to be any."""
        wanted = self.settings.decoder
        if wanted == "software":
            return None, None
        kinds: tuple[Literal["nvdec"] | Hardware, ...] = ("nvdec", *KINDS) if wanted == "auto" else (wanted,)
        for kind in kinds:
            try:
                return (open_nvdec(), None) if kind == "nvdec" else (None, open_hwaccel(kind))
            except DecoderError as error:
                if wanted == "auto":
                    log.info("%s", error)
                elif self.settings.cpu_fallback:
                    log.warning("%s: the processor decodes video instead", error)
                else:
                    raise
        if wanted == "auto":
            log.info("the processor decodes video")
        return None, None

    def _refuse_over_limits(self, model: str, owner: Quota) -> None:
        limit = self.settings.model_limit.get(model)
        if limit is not None and sum(stream.engine.bundle.name == model for stream in self.streams) >= limit:
            detail = f"model {model!r} has its {limit} streams: delete one, or try again later"
            raise TooManyStreamsError(detail, "model_limit")
        limit = owner.limits.streams
        if limit is not None and sum(stream.owner is owner for stream in self.streams) >= limit:
            detail = f"{owner.holder} has its {limit} streams: delete one, or try again later"
            raise TooManyStreamsError(detail, owner.limit_of_streams)

    async def _load(self) -> None:
        try:
            self.devices = await asyncio.to_thread(self._find_devices, self.settings)
            await self._models.start(self._bundles, self.devices)
        except Exception as error:
            unexpected = not isinstance(error, EngineError)
            log.error("the models can't be loaded: %s", error, exc_info=unexpected)
            self.failure = error
        else:
            self._bundles = ()  # so that they are freed together with their engines
            self._ready = True
            log.info("ready: %s", ", ".join(engine.bundle.name for engine in self._models))
        self.loaded.set()
