"""Export OpenTelemetry traces of requests and frames by OTLP over HTTP. Needs the extra `otel`.

    POST /v1/streams/{stream_id}/frames        a request, the child of its caller's `traceparent`
    └── frame                                  the request's frame
        └── decode, queue, inference, postprocess

Each frame of a connection has its own trace, which is linked to the connection's. A connection may last for days, so
samplers must be able to choose among its frames.
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
UNTRACED_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # monitoring requests them all the time
CLOSE_TIMEOUT: Final = 5.0  # seconds to export the remaining spans in


class Tracer:
    """Records spans of requests and frames, and exports them to the endpoint that the environment names."""

    def __init__(self) -> None:
        """Read the `OTEL_...` variables, and start the exporting thread.

        Raises:
            ValueError: If a variable has an invalid value.
        """
        ours = Resource.create({"service.name": "keywarp", "service.version": version("keywarp")})
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()),  # the operator's attributes win over ours
            shutdown_on_exit=False,
        )
        self._exporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("keywarp", version("keywarp"))

    @property
    def request_telemetry(self) -> TelemetryConfig:
        """FastAPI's configuration for spans of requests and connections."""
        return TelemetryConfig(
            tracer_provider=self._provider,
            metrics=False,
            logs=False,
            operation_spans=False,
            auto_configure=False,
            exclude=lambda scope: scope["path"] in UNTRACED_PATHS,
        )

    def record_frame(self, stream: str, model: str, result: FrameResult, timings: Timings, *, linked: bool) -> None:
        """Record the span of a frame whose result is ready now.

        Args:
            stream: The id of the frame's stream.
            model: The name of the stream's model.
            result: The frame's result.
            timings: The seconds of the frame's stages, whose spans follow each other without a gap.
            linked: Whether the frame gets its own trace, linked to the current request's span, instead of a
                span within it.
        """
        end = time.time_ns()
        stages = [(name, round(seconds / NANOSECOND)) for name, seconds in timings]
        start = end - sum(duration for _, duration in stages)
        attributes: dict[str, AttributeValue] = {
            "keywarp.stream": stream,
            "keywarp.model": model,
            "keywarp.frame": result.index,
            "keywarp.kind": result.kind.value,
            "keywarp.key_age": result.key_age,
            "keywarp.key_age_seconds": result.key_age_seconds,
        }
        if result.reason is not None:
            attributes["keywarp.reason"] = result.reason.value
        if result.reliability is not None:
            attributes["keywarp.reliability"] = result.reliability
        span = self._start_frame(attributes, start, linked=linked)
        if span.is_recording():
            within_span = set_span_in_context(span, Context())
            for name, duration in stages:
                stage = self._tracer.start_span(name, within_span, start_time=start)
                start += duration
                stage.end(start)
        span.end(end)

    def record_failed_frame(self, stream: str, model: str, index: int, reason: str, *, linked: bool) -> None:
        """Record the span of a frame whose response is an error.

        Args:
            stream: The id of the frame's stream.
            model: The name of the stream's model.
            index: The frame's position in its stream.
            reason: The kind of error.
            linked: Whether the frame gets its own trace, as in `record_frame`.
        """
        now = time.time_ns()
        attributes: dict[str, AttributeValue] = {
            "keywarp.stream": stream,
            "keywarp.model": model,
            "keywarp.frame": index,
            "error.type": reason,
        }
        span = self._start_frame(attributes, now, linked=linked)
        span.set_status(StatusCode.ERROR)
        span.end(now)

    def close(self) -> None:
        """Export the remaining spans, unless the collector doesn't respond in time."""
        shutdown = Thread(target=self._provider.shutdown, name="keywarp-traces", daemon=True)
        shutdown.start()
        shutdown.join(CLOSE_TIMEOUT)
        if shutdown.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # ends its retries

    def _start_frame(self, attributes: Mapping[str, AttributeValue], start: int, *, linked: bool) -> Span:
        if not linked:
            return self._tracer.start_span("frame", attributes=attributes, start_time=start)
        request = get_current_span().get_span_context()
        links = [Link(request)] if request.is_valid else []
        return self._tracer.start_span("frame", Context(), attributes=attributes, links=links, start_time=start)
