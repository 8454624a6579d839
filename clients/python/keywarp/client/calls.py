"""The requests of the REST interface, and what their answers mean; both clients send them."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final, Generic, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from websockets.exceptions import InvalidHandshake, InvalidStatus

from keywarp.client.errors import ApiError, ConnectError, ProtocolError
from keywarp.client.images import encode_jpeg
from keywarp.client.reconnecting import PASSING
from keywarp.protocol import SUBPROTOCOL, ClientId, CreateStream, ModelInfo, Problem, Result, StreamInfo

DEFAULT_SERVER = "http://127.0.0.1:8080"
LOAD_TIMEOUT = 600.0  # seconds, for a model to be compiled
DEFAULT_TIMEOUT = 60.0  # seconds; a frame of a new size waits for a model to be compiled for it
MAX_MESSAGE_BYTES = 64 * 2**20  # of a server's message: a label map of 50 million pixels of noise

# A server that is gone without goodbye is noticed within 40 s, also by who only listens.
KEEPALIVE: Final = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))  # seconds, seconds, probes
    if hasattr(socket, name)  # not all systems let a program choose
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and the type of its answer."""

    answer: TypeAdapter[T]
    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    content_type: str = "application/json"
    timeout: float | None = None  # seconds; None: the client's

    def request(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build it for a client of either kind."""
        headers = {"content-type": self.content_type} if self.content is not None else {}
        request = client.build_request(
            self.method, self.path, params=self.params or None, content=self.content, headers=headers
        )
        if self.timeout is not None:
            request.extensions["timeout"] = httpx.Timeout(self.timeout).as_dict()
        return request

    def read(self, response: httpx.Response) -> T:
        """Read the answer.

        Raises:
            ApiError: The server refused.
            ProtocolError: This isn't an answer that a Keywarp server gives.
        """
        if not response.is_success:
            raise ApiError(_problem(response), retry_after(response.headers.get("Retry-After")))
        try:
            return self.answer.validate_json(response.content or b"null")
        except ValidationError as error:
            raise ProtocolError(f"{response.request.url} gives an answer that Keywarp doesn't: {error}") from error


def authorization(api_key: str | None) -> dict[str, str]:
    """The headers that bear an API key; None: the environment's, if there is one."""
    key = api_key or os.environ.get("KEYWARP_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def models() -> Call[tuple[ModelInfo, ...]]:
    """List the models."""
    return Call(TypeAdapter(tuple[ModelInfo, ...]), "GET", "/v1/models")


def model(name: str) -> Call[ModelInfo]:
    """Show one model."""
    return Call(TypeAdapter(ModelInfo), "GET", f"/v1/models/{quote(name, safe='')}")


def load_model(name: str, timeout: float) -> Call[ModelInfo]:
    """Load a model, or load it anew."""
    return Call(TypeAdapter(ModelInfo), "POST", f"/v1/models/{quote(name, safe='')}/load", timeout=timeout)


def unload_model(name: str, *, force: bool) -> Call[ModelInfo]:
    """Unload a model."""
    params = {"force": "true"} if force else {}
    return Call(TypeAdapter(ModelInfo), "POST", f"/v1/models/{quote(name, safe='')}/unload", params)


def streams() -> Call[tuple[StreamInfo, ...]]:
    """List the streams."""
    return Call(TypeAdapter(tuple[StreamInfo, ...]), "GET", "/v1/streams")


def stream_info(stream_id: str) -> Call[StreamInfo]:
    """Show one stream."""
    return Call(TypeAdapter(StreamInfo), "GET", f"/v1/streams/{quote(stream_id, safe='')}")


def create_stream(options: CreateStream) -> Call[StreamInfo]:
    """Make a stream."""
    content = options.model_dump_json(exclude_none=True).encode()
    return Call(TypeAdapter(StreamInfo), "POST", "/v1/streams", content=content)


def pause_stream(stream_id: str) -> Call[StreamInfo]:
    """Let a pulled stream's source go."""
    return Call(TypeAdapter(StreamInfo), "POST", f"/v1/streams/{quote(stream_id, safe='')}/pause")


def resume_stream(stream_id: str) -> Call[StreamInfo]:
    """Pull a stream's source again."""
    return Call(TypeAdapter(StreamInfo), "POST", f"/v1/streams/{quote(stream_id, safe='')}/resume")


def watch(stream_id: str) -> tuple[str, str]:
    """Watch a stream: method and path of an answer that doesn't end."""
    return "GET", f"/v1/streams/{quote(stream_id, safe='')}/results"


def endless(client: httpx.Client | httpx.AsyncClient) -> httpx.Timeout:
    """The client's timeouts, without one between two lines: a stream may be silent."""
    return httpx.Timeout(client.timeout.connect, read=None)


def delete_stream(stream_id: str) -> Call[None]:
    """Free a stream."""
    return Call(TypeAdapter(type(None)), "DELETE", f"/v1/streams/{quote(stream_id, safe='')}")


def infer(
    stream_id: str,
    image: NDArray[np.uint8] | bytes,
    id: ClientId | None,  # noqa: A002
    timestamp: float | None,
    quality: int,
) -> Call[Result]:
    """Send one frame."""
    content = image if isinstance(image, bytes) else encode_jpeg(image, quality)
    params = {name: str(value) for name, value in (("id", id), ("timestamp", timestamp)) if value is not None}
    path = f"/v1/streams/{quote(stream_id, safe='')}/frames"
    return Call(TypeAdapter(Result), "POST", path, params, content, _image_type(content))


def check_server(server: str) -> str:
    """Check a server's address.

    Raises:
        ValueError: It isn't http:// or https:// and a host.
    """
    url = httpx.URL(server)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"a server's address looks like {DEFAULT_SERVER}, not {server!r}")
    return str(url).rstrip("/")  # with its scheme in lower case


def websocket_address(server: str, stream_id: str) -> str:
    """Say where a stream's WebSocket is."""
    return f"ws{server.removeprefix('http')}/v1/streams/{quote(stream_id, safe='')}/ws"


def unreachable(server: str, error: Exception) -> ConnectError:
    """Say that no server answers."""
    if isinstance(error, (TimeoutError, httpx.TimeoutException)):
        return ConnectError(f"the server at {server} did not answer in time")
    return ConnectError(f"no server answers at {server} ({error}): start one with `keywarp serve`")


def refused(server: str, error: InvalidHandshake | EOFError) -> ApiError | ConnectError | ProtocolError:
    """Say that the server did not let a WebSocket begin."""
    if isinstance(error, InvalidStatus):
        status, asked = error.response.status_code, retry_after(error.response.headers.get("Retry-After"))
        try:
            return ApiError(Problem.model_validate_json(bytes(error.response.body or b"")), asked)
        except ValidationError:
            if status in PASSING:  # a proxy's page
                return ApiError(Problem(title=f"{server} answers with HTTP status {status}", status=status), asked)
            return ProtocolError(f"{server} does not speak {SUBPROTOCOL} (HTTP status {status})")
    if isinstance(error, EOFError) or isinstance(error.__cause__, EOFError):
        return ConnectError(f"{server} closed the connection before it answered")
    return ProtocolError(f"{server} does not speak {SUBPROTOCOL}: {error}")


def retry_after(value: str | None) -> float | None:
    """Read the header Retry-After (RFC 9110, section 10.2.3), in seconds from now; None: not there, or not valid."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        title = f"the server answered {response.status_code} {response.reason_phrase}".rstrip()
        return Problem(title=title, status=response.status_code)


def _image_type(image: bytes) -> str:
    if image.startswith(b"\x89PNG"):
        return "image/png"
    return "image/webp" if image[:4] == b"RIFF" else "image/jpeg"
