"""A model's engines on the devices.

A stream keeps the engine that it gets at its start, because its key features are on that engine's device.
"""

import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from keywarp.engines import SLICES, BackendError, Bundle, Engine, EngineError, FixedInterval, Gpu, StreamSession
from keywarp.server.devices import Device
from keywarp.server.settings import Settings

log = logging.getLogger(__name__)

WARM_UP_SIZE = (720, 1280)  # height and width in pixels of the frames that a new engine is tried with
SIZES_IN_USE = 60.0  # seconds from the last frame of a size in which it isn't freed for another


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """A model's engine on one device."""

    engine: Engine
    device: Device


class ReplicaError(EngineError):
    """A model can't be compiled or run on one of the GPUs."""

    def __init__(self, gpu: Gpu, cause: str) -> None:
        super().__init__(f"{gpu.label}: {cause}")
        self.gpu = gpu


def open_replicas(bundle: Bundle, settings: Settings, devices: Iterable[Device]) -> tuple[Replica, ...]:
    """Compile and try a bundle on all devices. Blocks, perhaps for minutes.

    One device follows the other, so that GPUs of one kind reuse the compiled plans of the first.

    Raises:
        ReplicaError: If the bundle can't be compiled or run on one of the GPUs.
        EngineError: If the bundle can't be compiled or run on the CPU, or can't be used at all.
    """
    replicas: list[Replica] = []
    with ExitStack() as failed:
        for device in devices:
            engine = open_engine(bundle, settings, device.gpu, device.executor.lanes)
            failed.callback(engine.close)
            replicas.append(Replica(engine, device))
        failed.pop_all()
    return tuple(replicas)


def close_replicas(replicas: Iterable[Replica]) -> None:
    """Free all engines. Blocks."""
    for replica in replicas:
        replica.engine.close()


def least_loaded(replicas: Sequence[Replica]) -> Replica:
    """Return the replica for a new stream: the one on the least loaded device.

    A stream that is too young for a measured load counts with the mean load of the others, so that many new streams
    spread over the devices. Among devices whose loads are equal, rounded to a tenth, the one with the fewest streams is
    chosen, then the first. A device under high pressure is chosen only if all are.
    """
    shares = [load.share for replica in replicas for load in replica.device.loads]
    known = [share for share in shares if share is not None]
    typical = sum(known) / len(known) if known else 0.0

    def order(replica: Replica) -> tuple[bool, float, int]:
        device = replica.device
        return device.pressure.is_high, round(device.total_load(typical), 1), len(device.loads)

    return min(replicas, key=order)


def open_engine(bundle: Bundle, settings: Settings, gpu: Gpu | None, lanes: int = 1) -> Engine:
    """Compile and try a bundle on one device.

    Args:
        bundle: The bundle.
        settings: The operator's settings for the engine.
        gpu: The GPU, or None for the CPU.
        lanes: The number of frames that run at the same time.

    Raises:
        ReplicaError: If the bundle can't be compiled or run on the GPU.
        EngineError: If the bundle can't be compiled or run on the CPU, or can't be used at all.
    """
    try:
        engine = Engine(
            bundle,
            settings.backend,
            settings.precision,
            settings.threads,
            settings.cache,
            settings.motion,
            fallback=settings.cpu_fallback and gpu is None,
            gpu=gpu,
            max_sizes=settings.max_sizes,
            sizes_in_use=SIZES_IN_USE,
            lanes=lanes,
            slices=SLICES if settings.overlap else 1,
            batch=settings.batch,
        )
        try:
            _warm_up(engine)
            engine.mark_sizes_unused()
        except BaseException:
            engine.close()
            raise
    except BackendError as error:
        if gpu is None:
            raise
        raise ReplicaError(gpu, str(error)) from error
    backend, manifest = engine.backend, bundle.manifest
    details = (backend.name, backend.device, backend.precision, engine.motion)
    log.info("model %s, version %s, runs on %s %s %s, motion: %s", manifest.name, manifest.version, *details)
    return engine


def _warm_up(engine: Engine) -> None:
    """Process a key frame and a propagated frame, so that no client has to wait for the slow first run of either."""
    session = StreamSession(engine, FixedInterval(2))
    frame = np.zeros((*WARM_UP_SIZE, 3), np.uint8)
    for lane in (None, *range(engine.lanes)):
        session.process(frame, lane=lane)
        session.process(frame, lane=lane)
    session.close()
