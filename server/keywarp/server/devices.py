"""The devices that the server works on: all GPUs that its backend can use, or the CPU."""

import logging
import math
import time
from typing import Final

from keywarp.engines import BackendError, Executor, FrameResult, Gpu, choose_backend, open_backend
from keywarp.server.pressure import Pressure
from keywarp.server.settings import Settings

log = logging.getLogger(__name__)

SPAN: Final = 10.0  # seconds back, about, over which demands are measured
YOUNG: Final = 2.0  # seconds; before, a stream's first key frame would pass for what it always takes


class Demand:
    """How much of its device's time a stream takes: an exponential average."""

    def __init__(self) -> None:
        self._average = 0.0
        self._since = self._at = time.monotonic()

    def note(self, seconds: float) -> None:
        """Take in what one frame took."""
        self._decay()
        self._average += seconds / SPAN

    @property
    def share(self) -> float | None:
        """From 0 to 1; None where the stream is too young to tell."""
        self._decay()
        age = self._at - self._since
        return None if age < YOUNG else self._average / -math.expm1(-age / SPAN)  # nothing is known from before it

    def _decay(self) -> None:
        now = time.monotonic()
        self._average *= math.exp((self._at - now) / SPAN)
        self._at = now


class Device:
    """A GPU or the CPU: the thread that works for it, and what streams ask of it. For use on the event loop."""

    def __init__(self, gpu: Gpu | None, max_wait: float) -> None:
        """Begin without streams.

        Args:
            gpu: None: the CPU.
            max_wait: See `Settings`.
        """
        self.gpu = gpu
        self.name = gpu.label if gpu else "CPU"
        self.executor = Executor()
        self.pressure = Pressure(max_wait, lambda: self.executor.depth, self.name if gpu else "the device")
        self.demands: set[Demand] = set()  # of its streams
        self.busy = 0.0  # seconds, since the start

    def join(self) -> Demand:
        """Add a stream."""
        demand = Demand()
        self.demands.add(demand)
        return demand

    def leave(self, demand: Demand) -> None:
        """Forget a stream; nothing happens if that was done already."""
        self.demands.discard(demand)

    def note(self, demand: Demand, result: FrameResult) -> None:
        """Take in that a stream's frame was processed."""
        seconds = result.inference + result.postprocess
        self.busy += seconds
        self.pressure.note(result.turn)
        demand.note(seconds)

    def load(self, typical: float) -> float:
        """The sum of what its streams take, where those too young to tell are taken for `typical`."""
        shares = (demand.share for demand in self.demands)
        return sum(typical if share is None else share for share in shares)


def find_devices(settings: Settings) -> tuple[Device, ...]:
    """The GPUs that the backend can use, the best first; else the CPU. Blocking.

    Raises:
        BackendError: No runtime is installed.
    """
    gpus = choose_backend(settings.backend).gpus
    if settings.cpu_fallback:
        gpus = tuple(gpu for gpu in gpus if _is_usable(gpu, settings))
    return tuple(Device(gpu, settings.max_wait) for gpu in gpus or (None,))


def _is_usable(gpu: Gpu, settings: Settings) -> bool:
    try:
        open_backend(settings.backend, settings.precision, gpu=gpu)
    except BackendError as error:
        log.warning("%s is left out: %s", gpu.label, error)
        return False
    return True
