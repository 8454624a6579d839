"""Connecting to a server, for both clients: addresses, options and errors."""

import os
import socket
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote

import httpx
from pydantic import ValidationError
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from keywarp.client.errors import ApiError, ConnectError, ProtocolError
from keywarp.client.reconnecting import TEMPORARY
from keywarp.protocol import SUBPROTOCOL, Problem
from keywarp.protocol.addresses import without_secrets

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
DEFAULT_TIMEOUT: Final = 60.0  # seconds; the first frame of a size may wait until the model is compiled for it
READY_POLL: Final = 0.2  # seconds between questions whether a server has loaded its models
LOAD_TIMEOUT: Final = 600.0  # seconds; compiling a model may take minutes
CLOSE_TIMEOUT: Final = 2.0  # seconds for the closing handshake of a WebSocket
MAX_MESSAGE_BYTES: Final = 64 * 2**20  # of a server's message; a label map of 50 million random pixels fits

# A connection that only receives notices within 40 s that the server is gone.
KEEPALIVE: Final = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))  # seconds, seconds, probes
    if hasattr(socket, name)  # some systems don't let a program choose
]


def check_server(server: str) -> str:
    """Check a server's address, and return it in its normal form, without a user and password.

    Raises:
        ValueError: If it doesn't consist of http:// or https:// and a host.
    """
    url = _parse(server)
    if url is None or url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"a server's address looks like {DEFAULT_SERVER}, not {without_secrets(server)!r}")
    # httpx has converted the scheme to lower case
    return str(url.copy_with(username=None, password=None, query=None, fragment=None)).rstrip("/")


def authorization(api_key: str | None, server: str = DEFAULT_SERVER) -> dict[str, str]:
    """Return the headers that carry an API key, and the user and password of a server's address.

    Args:
        api_key: The key. None stands for the key in the environment, if there is one.
        server: The address. Its user and password are those of a proxy in front of the server.
    """
    key = api_key or os.environ.get("KEYWARP_API_KEY")
    url = _parse(server)
    if url is not None and url.userinfo:
        login = b64encode(f"{url.username}:{url.password}".encode()).decode()
        return {"Authorization": f"Basic {login}"} | ({"X-API-Key": key} if key else {})
    return {"Authorization": f"Bearer {key}"} if key else {}


def _parse(server: str) -> httpx.URL | None:
    try:
        return httpx.URL(server)
    except httpx.InvalidURL:
        return None


def websocket_address(server: str, stream_id: str) -> str:
    """Return the address of a stream's WebSocket."""
    return f"ws{server.removeprefix('http')}/v1/streams/{quote(stream_id, safe='')}/ws"


def websocket_options(timeout: float, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the options for the `connect` of websockets.

    Args:
        timeout: Seconds that connecting may take.
        headers: Headers of the request.
    """
    return {
        "subprotocols": [Subprotocol(SUBPROTOCOL)],
        "additional_headers": headers,
        "compression": None,
        "max_size": MAX_MESSAGE_BYTES,
        # The credit bounds the number of results, so receiving needs no limit, which could block sending.
        "max_queue": None,
        "open_timeout": timeout,
        "close_timeout": CLOSE_TIMEOUT,
    }


def without_read_timeout(client: httpx.Client | httpx.AsyncClient) -> httpx.Timeout:
    """Return the client's timeouts without the one for reading, since a stream may have no results for a while."""
    return httpx.Timeout(client.timeout.connect, read=None)


@contextmanager
def connection_errors(server: str) -> Iterator[None]:
    """Translate errors that connecting to a server raises in the block.

    Raises:
        ConnectError: If no server responds, or it closes the connection at once.
        ApiError: If the server refuses a WebSocket.
        ProtocolError: If the server doesn't speak our protocol.
    """
    try:
        yield
    except (InvalidHandshake, EOFError) as error:
        raise _refused(server, error) from error
    except (httpx.HTTPError, OSError) as error:  # TimeoutError is an OSError
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            raise ConnectError(f"the server at {server} did not answer in time") from error
        raise ConnectError(f"no server answers at {server} ({error}): start one with `keywarp serve`") from error


def retry_after(value: str | None) -> float | None:
    """Read the header Retry-After (RFC 9110, section 10.2.3).

    Returns:
        Seconds from now, or None if there is no such header or it isn't valid.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _refused(server: str, error: InvalidHandshake | EOFError) -> ApiError | ConnectError | ProtocolError:
    if isinstance(error, InvalidStatus):
        status, wait = error.response.status_code, retry_after(error.response.headers.get("Retry-After"))
        try:
            return ApiError(Problem.model_validate_json(bytes(error.response.body or b"")), wait)
        except ValidationError:
            if status in TEMPORARY:  # a proxy responds in place of the server
                return ApiError(Problem(title=f"{server} answers with HTTP status {status}", status=status), wait)
            return ProtocolError(f"{server} does not speak {SUBPROTOCOL} (HTTP status {status})")
    if isinstance(error, EOFError) or isinstance(error.__cause__, EOFError):
        return ConnectError(f"{server} closed the connection before it answered")
    return ProtocolError(f"{server} does not speak {SUBPROTOCOL}: {error}")
