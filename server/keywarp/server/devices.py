"""The devices that process frames, all GPUs that the backend can use or the CPU, and how loaded they are."""

import logging
import math
import time
from collections.abc import Callable
from typing import Final

from keywarp.engines import (
    FRAMES_IN_FLIGHT,
    BackendError,
    Executor,
    FrameResult,
    Gpu,
    available_cores,
    choose_backend,
    open_backend,
    usual_lanes,
)
from keywarp.server.settings import Settings
from keywarp.server.telemetry.metrics import DeviceReading

log = logging.getLogger(__name__)

TIME_CONSTANT: Final = 10.0  # seconds; about how far back loads and pressure are averaged
MIN_AGE: Final = 2.0  # seconds; in a younger stream, the first key frame would dominate the load
HIGH_WATERMARK: Final = 0.5  # share of time at which the pressure becomes high
LOW_WATERMARK: Final = 0.25  # share of time below which the pressure is no longer high


class StreamLoad:
    """The share of its device's time that a stream uses, as an exponential average."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without load.

        Args:
            clock: Returns monotonic seconds.
        """
        self._clock = clock
        self._average = 0.0
        self._started = self._updated = clock()

    def add(self, seconds: float) -> None:
        """Add the seconds that one frame took on the device."""
        self._decay()
        self._average += seconds / TIME_CONSTANT

    @property
    def share(self) -> float | None:
        """The share of time, from 0 to 1, or None while the stream is younger than `MIN_AGE`."""
        self._decay()
        age = self._updated - self._started
        # The divisor makes up for the time before the stream's start, in which it had no load.
        return None if age < MIN_AGE else self._average / -math.expm1(-age / TIME_CONSTANT)

    def _decay(self) -> None:
        now = self._clock()
        self._average *= math.exp((self._updated - now) / TIME_CONSTANT)
        self._updated = now


class Pressure:
    """The share of the last seconds in which streams waited too long for their turn on the device.

    A stream's turn comes when the frames of other streams that arrived earlier are done. This wait grows with the
    number of streams and their cost, but not with the length of one client's queue. So a single client that sends as
    fast as it can causes no pressure, and neither does a device that is merely busy.

    The share is an exponential average over time. No burst shorter than `TIME_CONSTANT` x ln 2 = 7 seconds raises it to
    `HIGH_WATERMARK`, and it falls as fast. A device without work is under no pressure, regardless of the past.
    """

    def __init__(
        self,
        limit: float,
        depth: Callable[[], int],
        device: str = "the device",
        *,
        time_constant: float = TIME_CONSTANT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without pressure.

        Args:
            limit: The seconds beyond which a wait is too long, or 0 for no limit.
            depth: Returns the number of frames that wait for the device or run on it.
            device: The device's name in the log.
            time_constant: The time constant of the average in seconds.
            clock: Returns monotonic seconds.
        """
        self._limit = limit or math.inf
        self._depth = depth
        self._device = device
        self._time_constant = time_constant
        self._clock = clock
        self._share = 0.0
        self._updated = clock()
        self._is_high = False

    @property
    def share(self) -> float:
        """The share of time, from 0 to 1."""
        if not self._depth():
            self._set(0.0)
        return self._share

    @property
    def is_high(self) -> bool:
        """Whether to refuse new streams: from `HIGH_WATERMARK` on, until the share is below `LOW_WATERMARK`."""
        return self.share > 0 and self._is_high

    def record_wait(self, seconds: float) -> None:
        """Record how long a stream waited for its turn, which has just come."""
        is_late = seconds > self._limit
        elapsed = self._clock() - self._updated
        span = min(elapsed, seconds) if is_late else elapsed  # a wait says nothing about the time before it
        self._set(self._share + (is_late - self._share) * -math.expm1(-span / self._time_constant))

    def _set(self, share: float) -> None:
        self._share, self._updated = share, self._clock()
        if not self._is_high and share >= HIGH_WATERMARK:
            self._is_high = True
            log.warning("streams wait over %g s for their turn on %s: it takes no new ones", self._limit, self._device)
        elif self._is_high and share < LOW_WATERMARK:
            self._is_high = False
            log.info("streams get their turn on %s in time again: it takes new ones", self._device)


class Device:
    """A GPU or the CPU, with its executor and the load of its streams. For use on the event loop only.

    Attributes:
        gpu: The GPU, or None for the CPU.
        name: The device's name.
        executor: Runs frames on the device.
        pressure: Tells whether the device has more streams than it can serve.
        loads: The loads of the device's streams.
        busy: Seconds of processing since the start. A frame on a share of the device counts with that share.
    """

    def __init__(
        self,
        gpu: Gpu | None,
        max_wait: float,
        lanes: int = 1,
        *,
        pressure_time_constant: float = TIME_CONSTANT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without streams.

        Args:
            gpu: The GPU, or None for the CPU.
            max_wait: The seconds beyond which a stream waits too long for its turn, or 0 for no limit.
            lanes: The number of frames of different streams that run at the same time.
            pressure_time_constant: The time constant of the pressure's average in seconds.
            clock: Returns monotonic seconds.
        """
        self.gpu = gpu
        self.name = gpu.label if gpu else "CPU"
        self.executor = Executor(lanes, in_flight=gpu is not None)
        self.pressure = Pressure(
            max_wait,
            lambda: self.executor.depth,
            self.name if gpu else "the device",
            time_constant=pressure_time_constant,
            clock=clock,
        )
        self.loads: set[StreamLoad] = set()
        self.busy = 0.0
        self._clock = clock

    @property
    def reading(self) -> DeviceReading:
        """The device's figures for the metrics."""
        return DeviceReading(self.name, self.busy, len(self.loads), self.executor.depth, self.pressure.share)

    def add_stream(self) -> StreamLoad:
        """Add a stream, and return its load."""
        load = StreamLoad(self._clock)
        self.loads.add(load)
        return load

    def remove_stream(self, load: StreamLoad) -> None:
        """Remove the stream of a load, unless it is removed already."""
        self.loads.discard(load)

    def record(self, load: StreamLoad, result: FrameResult) -> None:
        """Record that a frame of the load's stream was processed."""
        seconds = (result.inference + result.postprocess) * result.share + result.overlapped
        self.busy += seconds
        self.pressure.record_wait(result.turn)
        load.add(seconds)

    def total_load(self, typical: float) -> float:
        """Return the sum of the streams' shares of time. A stream that is too young for a share counts as `typical`."""
        shares = (load.share for load in self.loads)
        return sum(typical if share is None else share for share in shares)


def find_devices(settings: Settings) -> tuple[Device, ...]:
    """Return the GPUs that the backend can use, the best first, or else the CPU. Blocks.

    Raises:
        BackendError: If no runtime is installed.
    """
    gpus = choose_backend(settings.backend).gpus
    if settings.cpu_fallback:
        gpus = tuple(gpu for gpu in gpus if _is_usable(gpu, settings))
    if gpus:
        return tuple(Device(gpu, settings.max_wait, settings.lanes or FRAMES_IN_FLIGHT) for gpu in gpus)
    lanes, most = settings.lanes or usual_lanes(settings.threads), available_cores()
    if lanes > most:
        log.warning("frames run on %d lanes instead of %d: there are no more cores", most, lanes)
    return (Device(None, settings.max_wait, min(lanes, most)),)


def _is_usable(gpu: Gpu, settings: Settings) -> bool:
    try:
        open_backend(settings.backend, settings.precision, gpu=gpu)
    except BackendError as error:
        log.warning("%s isn't used: %s", gpu.label, error)
        return False
    return True
