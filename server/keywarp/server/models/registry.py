"""The registry of models, which are loaded, replaced by other versions and unloaded while streams run.

A stream keeps the engine that it got at its start; only pulled streams move on to a newer version. So a version that is
replaced or unloaded is no longer given to new streams; it drains, and is freed when its last stream has left it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
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
from keywarp.server.models.keypoints import keypoints_info
from keywarp.server.models.replicas import Replica, ReplicaError, close_replicas, open_replicas
from keywarp.server.models.repository import find_folder, list_folders
from keywarp.server.settings import Settings

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class ModelState(StrEnum):
    """The state of a model."""

    READY = "ready"
    LOADING = "loading"
    FAILED = "failed"  # the last load failed, and no version is ready
    DRAINING = "draining"  # unloaded, but still used by streams
    UNLOADED = "unloaded"


@dataclass(frozen=True, slots=True)
class ModelUser:
    """The parts of a stream that the registry of models uses."""

    replica: Replica
    wait_released: Callable[[], Awaitable[None]]  # waits until the stream no longer needs its replica
    close: Callable[[str], Awaitable[None]]  # closes the stream for the given reason
    renew: Callable[[], None]  # lets a pulled stream go on with the newest version


@dataclass(slots=True, eq=False)
class _Model:
    """The versions of one model."""

    replicas: tuple[Replica, ...] = ()  # of the version for new streams
    failure: str | None = None  # why the last load failed
    is_loading: bool = False
    # The replicas of other versions that streams still use, with the tasks that free them.
    draining: dict[tuple[Replica, ...], asyncio.Task[None]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # held during a load or unload

    @property
    def state(self) -> ModelState:
        if self.replicas:
            return ModelState.READY
        if self.is_loading:
            return ModelState.LOADING
        if self.failure:
            return ModelState.FAILED
        return ModelState.DRAINING if self.draining else ModelState.UNLOADED


class Models:
    """Models by name. For use on the event loop only; slow work runs on threads."""

    def __init__(
        self,
        settings: Settings,
        default: str,
        users: Callable[[], Iterable[ModelUser]],
        refuse_if_draining: Callable[[], None],
        count_load: Callable[[str], None],
    ) -> None:
        """Make an empty registry.

        Args:
            settings: The operator's settings for models and engines.
            default: The name of the model for streams that name none.
            users: Returns all streams.
            refuse_if_draining: Raises `DrainingError` if the server drains.
            count_load: Called with the outcome of each load, `loaded` or `failed`.
        """
        self._settings = settings
        self._default = default
        self._users = users
        self._refuse_if_draining = refuse_if_draining
        self._count_load = count_load
        self._devices: tuple[Device, ...] = ()
        self._models: dict[str, _Model] = {}
        # One thread, because one compilation already uses all cores, and two would need twice the memory.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="keywarp-loader")
        self._tasks: set[asyncio.Task[Any]] = set()

    def __getitem__(self, name: str | None) -> Engine:
        """Return one engine of a model, or of the default model for None.

        Raises:
            UnknownModelError: If no version of the model is ready. The message lists the models that are.
        """
        return self.replicas(name)[0].engine

    def __iter__(self) -> Iterator[Engine]:
        """Iterate over one engine of each model that is ready."""
        return iter([model.replicas[0].engine for model in self._models.values() if model.replicas])

    def replicas(self, name: str | None) -> tuple[Replica, ...]:
        """Return the replicas for new streams of a model, one on each device.

        Raises:
            UnknownModelError: If no version of the model is ready.
        """
        model = self._models.get(self._default if name is None else name)
        if model and model.replicas:
            return model.replicas
        known = f"there are: {', '.join(engine.bundle.name for engine in self) or 'none'}"
        if name is None:
            raise UnknownModelError(f"the default model {self._default!r} is not loaded: name another; {known}")
        raise UnknownModelError(f"there is no model {name[:64]!r}; {known}")

    # -- information ---------------------------------------------------------------------------------------------------

    def info(self, name: str) -> ModelInfo:
        """Return one model and its state.

        Raises:
            UnknownModelError: If the model is unloaded and no stream uses it.
        """
        model = self._models.get(name)
        if model is None or model.state is ModelState.UNLOADED:
            self[name]  # raises
        return self._info(name)

    def infos(self) -> list[ModelInfo]:
        """Return all models but those that are unloaded and that no stream uses, sorted by name."""
        known = [name for name, model in self._models.items() if model.state is not ModelState.UNLOADED]
        return [self._info(name) for name in sorted(known)]

    async def index(self) -> list[ModelInfo]:
        """Return all models and all bundles of the models folder, sorted by name."""
        on_disk = await asyncio.to_thread(list_folders, self._settings.models)
        return [self._info(name) for name in sorted({*self._models, *on_disk})]

    def count_versions(self) -> Mapping[str, int]:
        """Return the number of versions in each state. Versions that are ready or draining are in memory."""
        models = self._models.values()
        return {
            ModelState.READY: sum(bool(model.replicas) for model in models),
            ModelState.LOADING: sum(model.is_loading for model in models),
            ModelState.FAILED: sum(model.failure is not None for model in models),
            ModelState.DRAINING: sum(len(model.draining) for model in models),
        }

    # -- loading and unloading -----------------------------------------------------------------------------------------

    async def start(self, bundles: Sequence[Bundle], devices: tuple[Device, ...]) -> None:
        """Load the first models, all or none.

        Args:
            bundles: The models' bundles.
            devices: The devices for these models and all later ones.

        Raises:
            EngineError: If a model can't be compiled or run on the backend of the settings.
        """
        self._devices = devices
        opened = [
            await self._run_in_loader(partial(open_replicas, bundle, self._settings, devices)) for bundle in bundles
        ]
        self._models = {replicas[0].engine.bundle.name: _Model(replicas) for replicas in opened}

    async def load(self, name: str) -> ModelInfo:
        """Read a model from the models folder and load it, while its current version is still served.

        A load that has begun is finished, even if the caller is cancelled. If it fails, the current version stays.

        Raises:
            UnknownModelError: If the models folder holds no bundle of that name.
            LoadFailedError: If the bundle can't be used, compiled or run, or two bundles have that name.
            DrainingError: If the server drains.
        """
        return await asyncio.shield(self._start_task(self._load(name)))

    async def unload(self, name: str, *, force: bool = False) -> ModelInfo:
        """Stop giving a model to new streams. Streams that use it continue, unless `force` closes them.

        An unload that has begun is finished, even if the caller is cancelled.

        Args:
            name: The name of the model.
            force: Whether to close the streams of all the model's versions.

        Raises:
            UnknownModelError: If the model isn't loaded.
        """
        return await asyncio.shield(self._start_task(self._unload(name, force=force)))

    async def close(self) -> None:
        """Cancel all loads and unloads, and wait for a compilation that has begun."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._loader.shutdown, cancel_futures=True)

    async def _load(self, name: str) -> ModelInfo:
        folder = await asyncio.to_thread(find_folder, self._settings.models, name)
        model = self._models.setdefault(name, _Model())
        async with model.lock:
            self._refuse_if_draining()
            model.is_loading = True
            try:
                replicas = await self._run_in_loader(partial(_open_folder, folder, name, self._settings, self._devices))
            except Exception as error:
                log.exception("model %s can't be loaded", name)
                model.failure = _describe_failure(error, folder)
                self._count_load("failed")
                raise LoadFailedError(f"model {name!r} can't be loaded: {model.failure}") from error
            finally:
                model.is_loading = False
            self._count_load("loaded")
            old, model.replicas, model.failure = model.replicas, replicas, None
            if old:
                users = self._users_of(name)
                await self._retire(model, old)
                for user in users:
                    user.renew()
            return self._info(name)

    async def _unload(self, name: str, *, force: bool) -> ModelInfo:
        model = self._models.get(name) or _Model()
        async with model.lock:
            old, failure = model.replicas, model.failure
            if not (old or failure or (force and model.draining)):
                raise UnknownModelError(f"model {name[:64]!r} is not loaded")
            model.replicas, model.failure = (), None
            if old:
                await self._retire(model, old)
            if force:
                because = f"model {name!r} was unloaded"
                await asyncio.gather(*(user.close(because) for user in self._users_of(name)))
                await asyncio.gather(*model.draining.values())
            log.info("model %s is unloaded; %d streams still use it", name, self._info(name).draining or 0)
            return self._info(name)

    async def _retire(self, model: _Model, replicas: tuple[Replica, ...]) -> None:
        """Free the replicas of a replaced or unloaded version now, or when its last stream is closed."""
        users = [user for user in self._users() if user.replica in replicas]
        if users:
            model.draining[replicas] = self._start_task(self._free_when_released(model, replicas, users))
        else:
            await asyncio.to_thread(close_replicas, replicas)

    async def _free_when_released(
        self, model: _Model, replicas: tuple[Replica, ...], users: Sequence[ModelUser]
    ) -> None:
        for user in users:
            await user.wait_released()
        await asyncio.to_thread(close_replicas, replicas)
        del model.draining[replicas]
        manifest = replicas[0].engine.bundle.manifest
        log.info("model %s, version %s: freed after its last stream was closed", manifest.name, manifest.version)

    def _users_of(self, name: str) -> list[ModelUser]:
        return [user for user in self._users() if user.replica.engine.bundle.name == name]

    def _start_task(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget_task)
        return task

    def _forget_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved, in case the caller was cancelled

    async def _run_in_loader(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._loader, work)

    def _info(self, name: str) -> ModelInfo:
        model = self._models.get(name) or _Model()
        replicas = model.replicas or next(reversed(model.draining), ())
        info = describe(replicas[0].engine) if replicas else _unknown_info(name)
        streams = Counter(user.replica in model.replicas for user in self._users_of(name))
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
    """Return the information for clients about a loaded model."""
    manifest, backend = engine.bundle.manifest, engine.backend
    return ModelInfo(
        name=manifest.name,
        version=manifest.version,
        task=manifest.task,
        classes=tuple(ClassInfo(id=c.id, name=c.name, color=c.color) for c in manifest.classes),
        background=manifest.background,
        keypoints=keypoints_info(manifest),
        key_interval=manifest.key_interval,
        backend=backend.name,
        device=backend.device,
        precision=backend.precision,
        chosen=backend.reason,
        motion=engine.motion,
    )


def _unknown_info(name: str) -> ModelInfo:
    unknown = dict.fromkeys(("version", "task", "backend", "device", "precision", "chosen", "motion"), "")
    return ModelInfo(name=name, classes=(), key_interval=0, **unknown)


def _open_folder(folder: Path, name: str, settings: Settings, devices: Sequence[Device]) -> tuple[Replica, ...]:
    bundle = load_bundle(folder, keep=settings.controlled)
    if bundle.name != name:
        raise BundleError(f"{folder} was renamed to {bundle.name!r} during the load: try again")
    return open_replicas(bundle, settings, devices)


def _describe_failure(error: Exception, folder: Path) -> str:
    """Describe a failed load for clients: without paths, and without messages of runtimes, which may contain paths."""
    if isinstance(error, BundleError | MotionError):
        return str(error).replace(str(folder), folder.name) if folder.name else str(error)
    where = f"on {error.gpu.label}" if isinstance(error, ReplicaError) else "here"
    return f"it can't be compiled or run {where}; the server's log says why"
