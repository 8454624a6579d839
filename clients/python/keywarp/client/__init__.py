"""The Python client of Keywarp.

`Client` and `AsyncClient` talk to a server, and `open_source` opens a source of frames. `keywarp.client.drawing` and
`keywarp.client.writing` make annotated videos of the results.
"""

from keywarp.client.async_client import AsyncClient
from keywarp.client.async_streaming import AsyncResultStream
from keywarp.client.client import Client
from keywarp.client.connecting import DEFAULT_SERVER
from keywarp.client.errors import (
    ApiError,
    ConnectError,
    DrawingError,
    FrameError,
    KeywarpError,
    MediaError,
    ModelNotFoundError,
    ProtocolError,
    ResumeError,
    SourceError,
    SourceOptionError,
    StreamBusyError,
    StreamError,
    StreamGoneError,
    StreamTakenOverError,
    TableError,
    UnavailableError,
)
from keywarp.client.frames import Frame, Source
from keywarp.client.reconnecting import Reconnect
from keywarp.client.results import DetectionArrays, ProcessedFrame
from keywarp.client.sources import open_source
from keywarp.client.streaming import ResultStream
from keywarp.client.tables import to_pandas
from keywarp.client.watching import AsyncWatch, Watch

__all__ = [
    "DEFAULT_SERVER",
    "ApiError",
    "AsyncClient",
    "AsyncResultStream",
    "AsyncWatch",
    "Client",
    "ConnectError",
    "DetectionArrays",
    "DrawingError",
    "Frame",
    "FrameError",
    "KeywarpError",
    "MediaError",
    "ModelNotFoundError",
    "ProcessedFrame",
    "ProtocolError",
    "Reconnect",
    "ResultStream",
    "ResumeError",
    "Source",
    "SourceError",
    "SourceOptionError",
    "StreamBusyError",
    "StreamError",
    "StreamGoneError",
    "StreamTakenOverError",
    "TableError",
    "UnavailableError",
    "Watch",
    "open_source",
    "to_pandas",
]
