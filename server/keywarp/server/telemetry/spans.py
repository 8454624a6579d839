"""OpenTelemetry's traces of requests and frames, exported by OTLP over HTTP. Needs the extra `otel`.

    POST /v1/streams/{stream_id}/frames        a request: the child of its caller's `traceparent`
    └── frame                                  what it came for
        └── decode, queue, inference, postprocess

A connection's frames are traces of their own, each linked to the connection's: that may last for days, and a sampler
shall choose among its frames.
"""

import time
from collections.abc import Mapping
from importlib.metadata import version
from threading import Thread
from typing import Final

from fastapi.telemetry import TelemetryConfig
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, StatusCode, get_current_span, set_span_in_context
from opentelemetry.util.types import AttributeValue

from keywarp.engines import FrameResult
from keywarp.protocol import Timings

NANOSECOND: Final = 1e-9
QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # asked for all the time, by machines
FAREWELL: Final = 5.0  # seconds to export the rest in


class Traces:
    """What makes spans, and takes them to where the environment says."""

    def __init__(self) -> None:
        """Read `OTEL_...`, and start the thread that exports.

        Raises:
            ValueError: A variable is wrong.
        """
        ours = Resource.create({"service.name": "keywarp", "service.version": version("keywarp")})
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()),  # the operator's names win
            shutdown_on_exit=False,
        )
        self._exporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("keywarp", version("keywarp"))

    @property
    def of_requests(self) -> TelemetryConfig:
        """How FastAPI makes the spans of requests and connections."""
        return TelemetryConfig(
            tracer_provider=self._provider,
            metrics=False,
            logs=False,
            operation_spans=False,
            auto_configure=False,
            exclude=lambda scope: scope["path"] in QUIET,
        )

    def frame(self, stream: str, model: str, found: FrameResult, timings: Timings, *, apart: bool) -> None:
        """Tell of a frame whose result is there now.

        Args:
            stream: The id of its stream.
            model: The name of its model.
            found: The result.
            timings: Of its stages, which are shown one right after the other.
            apart: It is no part of the request that is being answered, but only linked to it.
        """
        end = time.time_ns()
        stages = [(name, round(seconds / NANOSECOND)) for name, seconds in timings]
        start = end - sum(duration for _, duration in stages)
        attributes: dict[str, AttributeValue] = {
            "keywarp.stream": stream,
            "keywarp.model": model,
            "keywarp.frame": found.index,
            "keywarp.kind": found.kind.value,
            "keywarp.key_age": found.key_age,
        }
        if found.reason is not None:
            attributes["keywarp.reason"] = found.reason.value
        span = self._start(attributes, start, apart=apart)
        if span.is_recording():
            inside = set_span_in_context(span, Context())
            for name, duration in stages:
                stage = self._tracer.start_span(name, inside, start_time=start)
                start += duration
                stage.end(start)
        span.end(end)

    def failed(self, stream: str, model: str, index: int, reason: str, *, apart: bool) -> None:
        """Tell of a frame that is answered with an error; see `frame`."""
        now = time.time_ns()
        attributes: dict[str, AttributeValue] = {
            "keywarp.stream": stream,
            "keywarp.model": model,
            "keywarp.frame": index,
            "error.type": reason,
        }
        span = self._start(attributes, now, apart=apart)
        span.set_status(StatusCode.ERROR)
        span.end(now)

    def close(self) -> None:
        """Export the rest; but a collector that is away doesn't keep the server from stopping."""
        ending = Thread(target=self._provider.shutdown, name="keywarp-traces", daemon=True)
        ending.start()
        ending.join(FAREWELL)
        if ending.is_alive():
            self._exporter.shutdown()  # it waits for no other try any more

    def _start(self, attributes: Mapping[str, AttributeValue], start: int, *, apart: bool) -> Span:
        if not apart:
            return self._tracer.start_span("frame", attributes=attributes, start_time=start)
        around = get_current_span().get_span_context()
        links = [Link(around)] if around.is_valid else []
        return self._tracer.start_span("frame", Context(), attributes=attributes, links=links, start_time=start)
