"""The Prometheus metrics. They use base units and their own registry, and no stream ids as labels."""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from keywarp.engines import FrameKind, FrameResult
from keywarp.protocol import StreamState, Timings

# Bounds in seconds, from a propagated frame's post-processing to a key frame on a slow CPU.
_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_AGE_BUCKETS: Final = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500)  # frames
_AGE_SECONDS_BUCKETS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
_CAMERA_STATES: Final = tuple(state for state in get_args(StreamState) if state != "open")
_SINK_OUTCOMES: Final = ("delivered", "missed", "failed")
_WRITE_OUTCOMES: Final = ("written", "missed", "failed")
_RELIABILITY_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class DeviceReading(NamedTuple):
    """One device's figures at the moment of a scrape."""

    name: str
    busy: float  # seconds of processing since the start
    streams: int  # open streams
    queue_depth: int  # frames that wait for the device or run on it
    pressure: float  # share of the last seconds in which streams waited too long, 0 to 1


class CameraReading(NamedTuple):
    """One configured camera at the moment of a scrape."""

    name: str
    state: StreamState
    frame_age: float | None  # seconds since its last result, or since it was started; None if it couldn't be


@dataclass
class ModelTotals:
    """One model's counts since the start of the server."""

    frames: int = 0  # frames with a result
    errors: int = 0  # frames with an error
    last: float = 0.0  # time of the last result; seconds since 1970
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # sums by stage

    def add(self, timings: Timings) -> None:
        """Add one result."""
        self.frames += 1
        self.last = time.time()
        for stage, seconds in timings:
            self.seconds[stage] += seconds


class Metrics:
    """All metrics of `/metrics`, and the totals of each model.

    Attributes:
        content_type: The media type of `exposition`.
        totals: The totals by the model's name.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(
        self,
        streams: Callable[[], int],
        devices: Callable[[], Collection[DeviceReading]],
        models: Callable[[], Mapping[str, int]],
    ) -> None:
        """Start all counts at zero. The callables are called at each scrape.

        Args:
            streams: Returns the number of open streams.
            devices: Returns the readings of the devices that process frames.
            models: Returns the number of versions of models by state.
        """
        self._count_models = models
        self.totals: defaultdict[str, ModelTotals] = defaultdict(ModelTotals)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._frames = Counter(
            "keywarp_frames_total", "Frames with a result.", ("model", "kind"), registry=self._registry
        )
        self._key_frames = Counter(
            "keywarp_key_frames_total",
            "Key frames, by the reason why they are key frames; or overlapped, if others were processed in between.",
            ("model", "reason"),
            registry=self._registry,
        )
        self._key_ages = Histogram(
            "keywarp_key_age_frames",
            "Frames since the key frame that a frame was propagated from, dropped ones included.",
            ("model",),
            registry=self._registry,
            buckets=_AGE_BUCKETS,
        )
        self._key_age_seconds = Histogram(
            "keywarp_key_age_seconds",
            "Time since the key frame that a frame was propagated from.",
            ("model",),
            registry=self._registry,
            buckets=_AGE_SECONDS_BUCKETS,
        )
        self._reliability = Histogram(
            "keywarp_reliability",
            "Reliability of propagated results: how well the motion since the key frame explains the frame.",
            ("model",),
            registry=self._registry,
            buckets=_RELIABILITY_BUCKETS,
        )
        self._errors = Counter(
            "keywarp_frame_errors_total", "Frames with an error.", ("reason",), registry=self._registry
        )
        self._dropped = Counter("keywarp_frames_dropped_total", "Dropped frames.", ("reason",), registry=self._registry)
        self._refused = Counter(
            "keywarp_requests_refused_total",
            "Requests refused for lack of a valid API key, for their origin, or for a limit.",
            ("reason",),
            registry=self._registry,
        )
        self._sinks = Counter(
            "keywarp_sink_answers_total",
            "Responses that a sink received (delivered) or missed, and its failures (failed).",
            ("sink", "outcome"),
            registry=self._registry,
        )
        self._events = Counter(
            "keywarp_events_total", "Events by rule, started and ended.", ("rule", "state"), registry=self._registry
        )
        self._event_writes = Counter(
            "keywarp_event_writes_total",
            "Events and clips that the database took (written) or never will (missed), and failed attempts (failed).",
            ("outcome",),
            registry=self._registry,
        )
        for outcome in _WRITE_OUTCOMES:
            self._event_writes.labels(outcome)
        self._pulls = Counter(
            "keywarp_pull_failures_total",
            "Times that the source of a pulled stream couldn't be opened, or ended.",
            registry=self._registry,
        )
        stages = Histogram(
            "keywarp_stage_seconds",
            "Time of one frame in one stage.",
            ("stage",),
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._stages = {stage: stages.labels(stage) for stage in Timings.model_fields}  # looked up once
        self._loads = Counter(
            "keywarp_model_loads_total", "Models loaded while the server runs.", ("outcome",), registry=self._registry
        )
        self._models = Gauge("keywarp_models", "Versions of models by state.", ("state",), registry=self._registry)
        Gauge("keywarp_streams", "Open streams.", registry=self._registry).set_function(streams)
        Gauge(
            "keywarp_queue_depth", "Frames that wait for a device or run on it.", registry=self._registry
        ).set_function(lambda: sum(device.queue_depth for device in devices()))
        Gauge(
            "keywarp_pressure_ratio",
            "Share of about the last 10 s in which streams waited too long for their turn on the device; the smallest "
            "share if there are several devices.",
            registry=self._registry,
        ).set_function(lambda: min((device.pressure for device in devices()), default=0.0))
        self._registry.register(_DeviceCollector(devices))
        Gauge("keywarp_tasks", "Tasks of the event loop.", registry=self._registry).set_function(_count_tasks)
        Gauge("keywarp_threads", "Python's threads.", registry=self._registry).set_function(threading.active_count)
        self._connections = Gauge("keywarp_connections", "Open connections of clients.", registry=self._registry)
        self._cameras: Callable[[], Collection[CameraReading]] = tuple
        self._registry.register(_CameraCollector(lambda: self._cameras()))

    def watch_cameras(self, cameras: Callable[[], Collection[CameraReading]]) -> None:
        """Export the cameras that the operator has configured. The callable is called at each scrape."""
        self._cameras = cameras

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Export the number of open connections. The callable is called at each scrape."""
        self._connections.set_function(count)

    def add_sink(self, name: str) -> None:
        """Export the counts of a sink from zero, so that Prometheus sees the first failure as an increase."""
        for outcome in _SINK_OUTCOMES:
            self._sinks.labels(name, outcome)

    def count_result(self, model: str, result: FrameResult, timings: Timings) -> None:
        """Count one frame with a result."""
        self._frames.labels(model, result.kind.value).inc()
        if result.reason:
            self._key_frames.labels(model, result.reason.value).inc()
        if result.overlapped:  # at the first frame that uses it
            self._key_frames.labels(model, "overlapped").inc()
        if result.kind is FrameKind.PROPAGATED:
            self._key_ages.labels(model).observe(result.key_age)
            self._key_age_seconds.labels(model).observe(result.key_age_seconds)
        if result.reliability is not None:
            self._reliability.labels(model).observe(result.reliability)
        for stage, seconds in timings:
            self._stages[stage].observe(seconds)
        self.totals[model].add(timings)

    def count_error(self, model: str, reason: str) -> None:
        """Count one frame with an error."""
        self._errors.labels(reason).inc()
        self.totals[model].errors += 1

    def count_dropped(self, reason: str) -> None:
        """Count one dropped frame."""
        self._dropped.labels(reason).inc()

    def count_refused(self, reason: str) -> None:
        """Count one request that was refused for its key, its origin, or a limit."""
        self._refused.labels(reason).inc()

    def count_load(self, outcome: str) -> None:
        """Count one request to load a model by its outcome, `loaded` or `failed`."""
        self._loads.labels(outcome).inc()

    def count_pull_failure(self) -> None:
        """Count one failure to read a pulled stream's source, or its end."""
        self._pulls.inc()

    def count_sink(self, name: str, outcome: str, count: int = 1) -> None:
        """Count responses that a sink received (`delivered`) or `missed`, or one failure (`failed`)."""
        self._sinks.labels(name, outcome).inc(count)

    def count_event(self, rule: str, state: str) -> None:
        """Count one event that `started` or `ended`."""
        self._events.labels(rule, state).inc()

    def count_event_writes(self, outcome: str, count: int) -> None:
        """Count events and clips that the database took (`written`) or never will (`missed`), or `failed` attempts."""
        self._event_writes.labels(outcome).inc(count)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        for state, count in self._count_models().items():
            self._models.labels(state).set(count)
        return generate_latest(self._registry)


def _count_tasks() -> int:
    """Count the tasks of the event loop that asks."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # none does
        return 0


class _DeviceCollector(Collector):
    """Exports the readings of each device; the devices aren't known before the models are loaded."""

    def __init__(self, devices: Callable[[], Collection[DeviceReading]]) -> None:
        self._devices = devices

    def collect(self) -> Iterator[Metric]:
        """Return one metric family for each kind of reading."""
        busy = CounterMetricFamily(
            "keywarp_device_busy_seconds", "Time that the device spent on frames.", labels=["device"]
        )
        streams = GaugeMetricFamily("keywarp_device_streams", "Open streams on the device.", labels=["device"])
        queue_depth = GaugeMetricFamily(
            "keywarp_device_queue_depth", "Frames that wait for the device or run on it.", labels=["device"]
        )
        pressure = GaugeMetricFamily(
            "keywarp_device_pressure_ratio",
            "Share of about the last 10 s in which streams waited too long for their turn on the device.",
            labels=["device"],
        )
        for device in self._devices():
            busy.add_metric([device.name], device.busy)
            streams.add_metric([device.name], device.streams)
            queue_depth.add_metric([device.name], device.queue_depth)
            pressure.add_metric([device.name], device.pressure)
        yield from (busy, streams, queue_depth, pressure)


class _CameraCollector(Collector):
    """Exports each configured camera. There are as many as the operator has named."""

    def __init__(self, cameras: Callable[[], Collection[CameraReading]]) -> None:
        self._cameras = cameras

    def collect(self) -> Iterator[Metric]:
        """Return the states, of which each camera has one, and the age of each camera's last frame."""
        states = GaugeMetricFamily(
            "keywarp_camera_state", "1 for the state of a configured camera, else 0.", labels=["camera", "state"]
        )
        ages = GaugeMetricFamily(
            "keywarp_camera_frame_age_seconds",
            "Time since the last result of a configured camera, or since it was started.",
            labels=["camera"],
        )
        for camera in self._cameras():
            for state in _CAMERA_STATES:
                states.add_metric([camera.name, state], state == camera.state)
            if camera.frame_age is not None:
                ages.add_metric([camera.name], camera.frame_age)
        yield from (states, ages)
