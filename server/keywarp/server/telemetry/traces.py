"""Export traces if the environment asks for them. Otherwise OpenTelemetry's SDK isn't imported."""

import os
from typing import TYPE_CHECKING, Final

from keywarp.server.errors import TracesError

if TYPE_CHECKING:
    from keywarp.server.telemetry.tracer import Tracer

# OpenTelemetry's own variables, so that settings for all of an operator's services apply to this one, too.
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_ONLY_PROTOCOL: Final = "http/protobuf"


def wants_traces() -> bool:
    """Return whether the environment asks for traces."""
    exporter = os.environ.get(_EXPORTER)
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    return bool(exporter or any(map(os.environ.get, _ENDPOINTS)))


def open_tracer() -> "Tracer":
    """Open the exporter that the environment describes.

    Raises:
        TracesError: If the environment asks for an unsupported exporter or protocol, a variable is invalid, or
            OpenTelemetry isn't installed.
    """
    if (exporter := os.environ.get(_EXPORTER)) not in (None, "", "otlp"):
        raise TracesError(f"{_EXPORTER}={exporter} isn't supported: set it to otlp or none")
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), _ONLY_PROTOCOL)
    if protocol != _ONLY_PROTOCOL:
        raise TracesError(f"traces are exported by OTLP over {_ONLY_PROTOCOL} (port 4318), not {protocol}")
    try:
        from keywarp.server.telemetry.tracer import Tracer
    except ImportError as error:
        raise TracesError(
            f"traces need {error.name}: install the extra `otel` (README, Install), or set {_EXPORTER}=none"
        ) from error
    try:
        return Tracer()
    except ValueError as error:
        raise TracesError(f"an OTEL_ variable is wrong: {error}") from error
