"""Whether OpenTelemetry's traces are asked for: nothing of it is imported where they aren't."""

import os
from typing import TYPE_CHECKING, Final

from keywarp.server.errors import TracesError

if TYPE_CHECKING:
    from keywarp.server.telemetry.spans import Traces

# OpenTelemetry's own variables: what operators set for all services goes for this one, too.
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_ONLY_PROTOCOL: Final = "http/protobuf"


def wants_traces() -> bool:
    """Whether the environment asks for traces."""
    exporter = os.environ.get(_EXPORTER)
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    return bool(exporter or any(map(os.environ.get, _ENDPOINTS)))


def open_traces() -> "Traces":
    """Begin to export traces, as the environment says.

    Raises:
        TracesError: It asks for what this server doesn't do, or OpenTelemetry isn't installed.
    """
    if (exporter := os.environ.get(_EXPORTER)) not in (None, "", "otlp"):
        raise TracesError(f"{_EXPORTER}={exporter}: traces are exported by otlp, or by none")
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), _ONLY_PROTOCOL)
    if protocol != _ONLY_PROTOCOL:
        raise TracesError(f"traces are exported by OTLP over {_ONLY_PROTOCOL} (port 4318), not {protocol}")
    try:
        from keywarp.server.telemetry.spans import Traces
    except ImportError as error:
        raise TracesError(
            f"traces need {error.name}: install the extra `otel` (README, Install), or set {_EXPORTER}=none"
        ) from error
    try:
        return Traces()
    except ValueError as error:
        raise TracesError(f"an OTEL_ variable is wrong: {error}") from error
