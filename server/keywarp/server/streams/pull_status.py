"""Where a pulled stream comes from, and whether it does."""

from dataclasses import dataclass

from keywarp.protocol.messages import Origin, StreamState


@dataclass(slots=True)
class PullStatus:
    """The source that a stream is pulled from, and the state of the pull."""

    source: str  # the URL without credentials
    state: StreamState = "connecting"
    problem: str | None = None
    reconnects: int = 0
    kept: bool = False  # whether it is pulled again after a restart of the server
    configured: Origin | None = None  # where it is configured, if it is kept
