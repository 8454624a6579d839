"""A model on devices: an engine on each, of which every stream gets one for good, since its key features are there."""

import logging
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from keywarp.engines import BackendError, Bundle, Engine, EngineError, FixedInterval, Gpu, StreamSession
from keywarp.server.devices import Device
from keywarp.server.settings import Settings

log = logging.getLogger(__name__)

WARM_UP_SIZE = (720, 1280)  # height, width of the frames that a fresh model is tried with


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """A model's engine on one device."""

    engine: Engine
    device: Device


class ReplicaError(EngineError):
    """A model can't be compiled or run on one of the GPUs."""

    def __init__(self, gpu: Gpu, why: str) -> None:
        super().__init__(f"{gpu.label}: {why}")
        self.gpu = gpu


def open_replicas(bundle: Bundle, settings: Settings, devices: Iterable[Device]) -> tuple[Replica, ...]:
    """Compile and try a bundle on all devices: blocking, maybe minutes.

    One after another, so that GPUs of the same kind find the plans of the first.

    Raises:
        ReplicaError: It can't be compiled or run on one of the GPUs.
        EngineError: It can't be on the CPU, or by what it is.
    """
    replicas: list[Replica] = []
    with ExitStack() as failed:
        for device in devices:
            engine = open_engine(bundle, settings, device.gpu)
            failed.callback(engine.close)
            replicas.append(Replica(engine, device))
        failed.pop_all()
    return tuple(replicas)


def close_replicas(replicas: Iterable[Replica]) -> None:
    """Free all engines; blocking."""
    for replica in replicas:
        replica.engine.close()


def least_loaded(replicas: Sequence[Replica]) -> Replica:
    """Where a new stream goes: to the device whose streams take the least of its time.

    Streams that are too new to tell count as much as the others do in the mean, so that many at once spread. Among
    devices that differ by less than a tenth it is the one with the fewest streams, then the better one. One whose
    streams wait too long for their turn comes last: if it is chosen, there is no other.
    """
    shares = [demand.share for replica in replicas for demand in replica.device.demands]
    known = [share for share in shares if share is not None]
    typical = sum(known) / len(known) if known else 0.0

    def order(replica: Replica) -> tuple[bool, float, int]:
        device = replica.device
        return device.pressure.is_high, round(device.load(typical), 1), len(device.demands)

    return min(replicas, key=order)


def open_engine(bundle: Bundle, settings: Settings, gpu: Gpu | None) -> Engine:
    """Compile and try a bundle on one device.

    Raises:
        ReplicaError: It can't be compiled or run on this GPU.
        EngineError: It can't be on the CPU, or by what it is.
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
        )
        try:
            _warm_up(engine)
        except BaseException:
            engine.close()
            raise
    except BackendError as error:
        if gpu is None:
            raise
        raise ReplicaError(gpu, str(error)) from error
    backend, manifest = engine.backend, bundle.manifest
    runs_on = (backend.name, backend.device, backend.precision, engine.motion)
    log.info("model %s, version %s, runs on %s %s %s, motion: %s", manifest.name, manifest.version, *runs_on)
    return engine


def _warm_up(engine: Engine) -> None:
    """Run both of a model's paths once, so that no client waits for what the first run costs."""
    session = StreamSession(engine, FixedInterval(2))
    frame = np.zeros((*WARM_UP_SIZE, 3), np.uint8)
    session.process(frame)
    session.process(frame)
    session.close()
