"""The models that the server has: loaded, switched to another version, and unloaded while streams go on.

A stream keeps the engine that it began with, one of those that its model has on the devices. So a version is replaced
or unloaded by no longer giving it to new streams; it drains, and is freed when the last of its streams is gone.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from keywarp.engines import Bundle, BundleError, Engine, MotionError, load_bundle
from keywarp.protocol import ClassInfo, ModelInfo
from keywarp.server.devices import Device
from keywarp.server.errors import LoadFailedError, UnknownModelError
from keywarp.server.models.replicas import Replica, ReplicaError, close_replicas, open_replicas
from keywarp.server.models.repository import find_folder, list_folders
from keywarp.server.settings import Settings
from keywarp.server.streams.registry import StreamRegistry
from keywarp.server.streams.stream import Stream

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class ModelState(StrEnum):
    """What a model is for new streams."""

    READY = "ready"
    LOADING = "loading"
    FAILED = "failed"  # it couldn't be loaded
    DRAINING = "draining"  # unloaded, but streams go on
    UNLOADED = "unloaded"


@dataclass(slots=True, eq=False)
class _Model:
    """One name: what is served under it."""

    replicas: tuple[Replica, ...] = ()  # what new streams get one of
    failure: str | None = None  # why the last load failed
    loading: bool = False
    # Of other versions, whose streams go on.
    draining: dict[tuple[Replica, ...], asyncio.Task[None]] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # of loads and unloads

    @property
    def state(self) -> ModelState:
        if self.replicas:
            return ModelState.READY
        if self.loading:
            return ModelState.LOADING
        if self.failure:
            return ModelState.FAILED
        return ModelState.DRAINING if self.draining else ModelState.UNLOADED


class Models:
    """Models by name. To be used on the event loop only; what takes long runs on a thread."""

    def __init__(
        self,
        settings: Settings,
        default: str,
        streams: StreamRegistry,
        admit: Callable[[], None],
        loaded: Callable[[str], None],
    ) -> None:
        """Make an empty registry.

        Args:
            settings: What is loaded from where, for which device.
            default: The model of streams that name none.
            streams: All streams.
            admit: Raises if the server takes nothing new.
            loaded: Told how each load ended, `loaded` or `failed`.
        """
        self._settings = settings
        self._default = default
        self._streams = streams
        self._admit = admit
        self._loaded = loaded
        self._devices: tuple[Device, ...] = ()
        self._models: dict[str, _Model] = {}
        # One thread: compiling takes all cores already, and two at once would take twice the memory.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="keywarp-loader")
        self._tasks: set[asyncio.Task[Any]] = set()

    def __getitem__(self, name: str | None) -> Engine:
        """An engine of a model, for what all of its version have in common; None: of the default model.

        Raises:
            UnknownModelError: There is no such model, or not now; says which there are.
        """
        return self.replicas(name)[0].engine

    def __iter__(self) -> Iterator[Engine]:
        """An engine of each model that new streams can have."""
        return iter([model.replicas[0].engine for model in self._models.values() if model.replicas])

    def replicas(self, name: str | None) -> tuple[Replica, ...]:
        """The engines for new streams of a model, one on each device; see `__getitem__`."""
        model = self._models.get(self._default if name is None else name)
        if model and model.replicas:
            return model.replicas
        there_are = f"there are: {', '.join(engine.bundle.name for engine in self) or 'none'}"
        if name is None:
            raise UnknownModelError(f"the default model {self._default!r} is not loaded: name another; {there_are}")
        raise UnknownModelError(f"there is no model {name[:64]!r}; {there_are}")

    # -- what is told of them ------------------------------------------------------------------------------------------

    def info(self, name: str) -> ModelInfo:
        """One model and its state.

        Raises:
            UnknownModelError: It is neither loaded, nor was it tried, nor do streams of it go on.
        """
        model = self._models.get(name)
        if model is None or model.state is ModelState.UNLOADED:
            self[name]  # raises
        return self._info(name)

    def infos(self) -> list[ModelInfo]:
        """All models that `info` knows."""
        known = [name for name, model in self._models.items() if model.state is not ModelState.UNLOADED]
        return [self._info(name) for name in sorted(known)]

    async def index(self) -> list[ModelInfo]:
        """All models, and all bundles of the models folder that are not loaded."""
        on_disk = await asyncio.to_thread(list_folders, self._settings.models)
        return [self._info(name) for name in sorted({*self._models, *on_disk})]

    def count(self) -> Mapping[str, int]:
        """Versions by state: those that are ready or draining are in memory."""
        models = self._models.values()
        return {
            ModelState.READY: sum(bool(model.replicas) for model in models),
            ModelState.LOADING: sum(model.loading for model in models),
            ModelState.FAILED: sum(model.failure is not None for model in models),
            ModelState.DRAINING: sum(len(model.draining) for model in models),
        }

    # -- loading and unloading -----------------------------------------------------------------------------------------

    async def start(self, bundles: Sequence[Bundle], devices: tuple[Device, ...]) -> None:
        """Load the first models, all or none.

        Args:
            bundles: Of the models.
            devices: That these and all that come later run on.

        Raises:
            EngineError: One can't be compiled or run on the backend that the settings ask for.
        """
        self._devices = devices
        opened = [await self._in_loader(partial(open_replicas, bundle, self._settings, devices)) for bundle in bundles]
        self._models = {replicas[0].engine.bundle.name: _Model(replicas) for replicas in opened}

    async def load(self, name: str) -> ModelInfo:
        """Read a model from the models folder and load it, beside the version that is served meanwhile.

        Once begun it is finished, even if this is cancelled.

        Raises:
            UnknownModelError: The models folder holds none of that name.
            LoadFailedError: It can't be used, compiled or run, or there are two; what was served still is.
            DrainingError: The server stops.
        """
        return await asyncio.shield(self._begin(self._load(name)))

    async def unload(self, name: str, *, force: bool = False) -> ModelInfo:
        """Give a model to no more streams; those that have it go on, unless `force` closes them.

        Once begun it is finished, even if this is cancelled.

        Raises:
            UnknownModelError: It isn't loaded.
        """
        return await asyncio.shield(self._begin(self._unload(name, force=force)))

    async def close(self) -> None:
        """Give up what was begun; waits for what is being compiled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._loader.shutdown, cancel_futures=True)

    async def _load(self, name: str) -> ModelInfo:
        folder = await asyncio.to_thread(find_folder, self._settings.models, name)
        model = self._models.setdefault(name, _Model())
        async with model.turn:
            self._admit()
            model.loading = True
            try:
                replicas = await self._in_loader(partial(_open_folder, folder, name, self._settings, self._devices))
            except Exception as error:
                log.exception("model %s can't be loaded", name)
                model.failure = _reason(error, folder)
                self._loaded("failed")
                raise LoadFailedError(f"model {name!r} can't be loaded: {model.failure}") from error
            finally:
                model.loading = False
            self._loaded("loaded")
            old, model.replicas, model.failure = model.replicas, replicas, None
            if old:
                await self._retire(model, old)
            return self._info(name)

    async def _unload(self, name: str, *, force: bool) -> ModelInfo:
        model = self._models.get(name) or _Model()
        async with model.turn:
            old, failure = model.replicas, model.failure
            if not (old or failure or (force and model.draining)):
                raise UnknownModelError(f"model {name[:64]!r} is not loaded")
            model.replicas, model.failure = (), None
            if old:
                await self._retire(model, old)
            if force:
                because = f"model {name!r} was unloaded"
                streams = [stream for stream in self._streams if stream.engine.bundle.name == name]
                await asyncio.gather(*(self._streams.remove(stream, because) for stream in streams))
                await asyncio.gather(*model.draining.values())
            log.info("model %s is unloaded; streams that go on: %d", name, self._info(name).draining or 0)
            return self._info(name)

    async def _retire(self, model: _Model, replicas: tuple[Replica, ...]) -> None:
        """Free engines that new streams no longer get: at once, or after their streams."""
        streams = [stream for stream in self._streams if stream.replica in replicas]
        if streams:
            model.draining[replicas] = self._begin(self._free(model, replicas, streams))
        else:
            await asyncio.to_thread(close_replicas, replicas)

    async def _free(self, model: _Model, replicas: tuple[Replica, ...], streams: Sequence[Stream]) -> None:
        for stream in streams:
            await stream.closed.wait()
            await stream.settle()
        await asyncio.to_thread(close_replicas, replicas)
        del model.draining[replicas]
        manifest = replicas[0].engine.bundle.manifest
        log.info("model %s, version %s: its last stream is gone, it is freed", manifest.name, manifest.version)

    def _begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even if nobody is left to be told

    async def _in_loader(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._loader, work)

    def _info(self, name: str) -> ModelInfo:
        model = self._models.get(name) or _Model()
        replicas = model.replicas or next(reversed(model.draining), ())
        info = describe(replicas[0].engine) if replicas else _nothing_known(name)
        streams = Counter(
            stream.replica in model.replicas for stream in self._streams if stream.engine.bundle.name == name
        )
        return info.model_copy(
            update={
                "devices": tuple(replica.device.name for replica in replicas),
                "state": model.state.value,
                "reason": model.failure,
                "streams": streams.total(),
                "draining": streams[False],
            }
        )


def describe(engine: Engine) -> ModelInfo:
    """What clients are told of a model that is loaded."""
    manifest, backend = engine.bundle.manifest, engine.backend
    return ModelInfo(
        name=manifest.name,
        version=manifest.version,
        task=manifest.task,
        classes=tuple(ClassInfo(id=c.id, name=c.name, color=c.color) for c in manifest.classes),
        key_interval=manifest.key_interval,
        backend=backend.name,
        device=backend.device,
        precision=backend.precision,
        chosen=backend.reason,
        motion=engine.motion,
    )


def _nothing_known(name: str) -> ModelInfo:
    unknown = dict.fromkeys(("version", "task", "backend", "device", "precision", "chosen", "motion"), "")
    return ModelInfo(name=name, classes=(), key_interval=0, **unknown)


def _open_folder(folder: Path, name: str, settings: Settings, devices: Sequence[Device]) -> tuple[Replica, ...]:
    bundle = load_bundle(folder, keep=settings.controlled)
    if bundle.name != name:
        raise BundleError(f"{folder} was renamed to {bundle.name!r} meanwhile: try again")
    return open_replicas(bundle, settings, devices)


def _reason(error: Exception, folder: Path) -> str:
    """Why a model can't be loaded, without where it lies; what runtimes say may hold paths, so it is for the log."""
    if isinstance(error, BundleError | MotionError):
        return str(error).replace(str(folder), folder.name) if folder.name else str(error)
    where = f"on {error.gpu.label}" if isinstance(error, ReplicaError) else "here"
    return f"it can't be compiled or run {where}; the server's log says why"
