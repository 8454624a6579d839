"""Which requests must reach the same replica, because they are about the same stream."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

QUERIES: Final = {"/v1/videos": "id", "/v1/events": "stream"}  # the parameters that name a stream, by path
SEQUENCE: Final = b"keywarp-sequence"


def affinity(scope: Mapping[str, Any]) -> str | None:
    """Return what decides on the replica of a request, or None if any replica will do.

    That is the stream's id in the path, in the query of uploads and lists of events, or in the header
    `Keywarp-Sequence` of `/v2` requests. Everything else of one client goes to one replica, so that its dashboard
    shows one; except uploads without an id, which begin a stream of their own.

    Args:
        scope: The ASGI scope of an HTTP request or a WebSocket.
    """
    path = str(scope["path"])
    if (stream := stream_in(path)) is not None:
        return stream
    if (parameter := QUERIES.get(path)) is not None:
        query = parse_qs(str(scope["query_string"], "latin-1"))
        if parameter in query:
            return query[parameter][0]
    if path.startswith("/v2/"):
        for name, value in scope["headers"]:
            if name == SEQUENCE:
                return str(value, "latin-1")
    if path == "/v1/videos":
        return None
    client = scope.get("client")
    return str(client[0]) if client else None


def stream_in(path: str) -> str | None:
    """Return the stream's id in a decoded path, or None if there is none."""
    root, _, rest = path.partition("/v1/streams/")
    return rest.partition("/")[0] or None if not root else None
