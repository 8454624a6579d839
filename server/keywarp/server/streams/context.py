"""What all streams of a server share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keywarp.server.events.store import EventStore
from keywarp.server.telemetry.metrics import Metrics
from keywarp.server.workers import Workers

if TYPE_CHECKING:
    from keywarp.server.telemetry.tracer import Tracer


@dataclass(frozen=True, slots=True)
class StreamContext:
    """What all streams share."""

    workers: Workers  # threads for decoding and encoding
    metrics: Metrics
    events: EventStore
    tracer: "Tracer | None" = None
