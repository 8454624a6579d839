"""The requests of the REST API and the types of their responses, for both clients."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Generic, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from keywarp.client.connecting import retry_after
from keywarp.client.errors import ApiError, ProtocolError
from keywarp.client.images import encode_jpeg
from keywarp.protocol import (
    ChangeStream,
    ClientId,
    CreateStream,
    FleetInfo,
    ModelInfo,
    Problem,
    Result,
    StreamInfo,
    faults,
)
from keywarp.protocol.events import Event, Rules

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and the type of its response."""

    response: TypeAdapter[T]
    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    content_type: str = "application/json"
    timeout: float | None = None  # seconds, or None for the client's timeout

    def request(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Build the request for one of the two kinds of client."""
        headers = {"content-type": self.content_type} if self.content is not None else {}
        request = client.build_request(
            self.method, self.path, params=self.params or None, content=self.content, headers=headers
        )
        if self.timeout is not None:
            request.extensions["timeout"] = httpx.Timeout(self.timeout).as_dict()
        return request

    def read(self, response: httpx.Response) -> T:
        """Read the response.

        Raises:
            ApiError: If the server refused the request.
            ProtocolError: If the response isn't one of a Keywarp server.
        """
        if not response.is_success:
            raise refusal(response)
        try:
            return self.response.validate_json(response.content or b"null")
        except ValidationError as error:
            fault = faults.describe(error, whole="the response", limit=1)
            raise ProtocolError(f"{response.request.url} didn't respond like a Keywarp server: {fault}") from error


def ready() -> Call[dict[str, str]]:
    """Ask whether the server is ready for streams."""
    return Call(TypeAdapter(dict[str, str]), "GET", "/readyz")


def refusal(response: httpx.Response) -> ApiError:
    """Return the error that an unsuccessful response stands for."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        title = f"the server responded with {response.status_code} {response.reason_phrase}".rstrip()
        problem = Problem(title=title, status=response.status_code)
    return ApiError(problem, retry_after(response.headers.get("Retry-After")))


def models() -> Call[tuple[ModelInfo, ...]]:
    """List the models."""
    return Call(TypeAdapter(tuple[ModelInfo, ...]), "GET", "/v1/models")


def model(name: str) -> Call[ModelInfo]:
    """Show one model."""
    return Call(TypeAdapter(ModelInfo), "GET", _model_path(name))


def load_model(name: str, timeout: float) -> Call[ModelInfo]:
    """Load a model, or load it again."""
    return Call(TypeAdapter(ModelInfo), "POST", f"{_model_path(name)}/load", timeout=timeout)


def unload_model(name: str, *, force: bool) -> Call[ModelInfo]:
    """Unload a model."""
    params = {"force": "true"} if force else {}
    return Call(TypeAdapter(ModelInfo), "POST", f"{_model_path(name)}/unload", params)


def streams() -> Call[tuple[StreamInfo, ...]]:
    """List the streams."""
    return Call(TypeAdapter(tuple[StreamInfo, ...]), "GET", "/v1/streams")


def fleet() -> Call[FleetInfo]:
    """List the streams of all servers behind one address."""
    return Call(TypeAdapter(FleetInfo), "GET", "/v1/fleet")


def stream_info(stream_id: str) -> Call[StreamInfo]:
    """Show one stream."""
    return Call(TypeAdapter(StreamInfo), "GET", _stream_path(stream_id))


def create_stream(options: CreateStream) -> Call[StreamInfo]:
    """Create a stream. Its id, made up here if there is none, is in the path, where a proxy can see it."""
    content = options.model_dump_json(exclude_defaults=True, exclude={"id"}).encode()
    return Call(TypeAdapter(StreamInfo), "PUT", _stream_path(options.id or token_hex(8)), content=content)


def change_stream(stream_id: str, changes: ChangeStream) -> Call[StreamInfo]:
    """Change options of a running stream."""
    content = changes.model_dump_json(exclude_unset=True).encode()
    return Call(TypeAdapter(StreamInfo), "PATCH", _stream_path(stream_id), content=content)


def pause_stream(stream_id: str) -> Call[StreamInfo]:
    """Disconnect a pulled stream from its source."""
    return Call(TypeAdapter(StreamInfo), "POST", f"{_stream_path(stream_id)}/pause")


def resume_stream(stream_id: str) -> Call[StreamInfo]:
    """Connect a pulled stream to its source again."""
    return Call(TypeAdapter(StreamInfo), "POST", f"{_stream_path(stream_id)}/resume")


def watch(stream_id: str) -> tuple[str, str]:
    """Return the method and the path of a request whose response lasts as long as the stream."""
    return "GET", f"{_stream_path(stream_id)}/results"


def set_rules(stream_id: str, rules: Rules) -> Call[Rules]:
    """Watch a stream by rules."""
    content = rules.model_dump_json(exclude_defaults=True).encode()
    return Call(TypeAdapter(Rules), "PUT", f"{_stream_path(stream_id)}/rules", content=content)


def events(stream_id: str | None, rule: str | None, limit: int) -> Call[tuple[Event, ...]]:
    """List events."""
    query = {"stream": stream_id, "rule": rule, "limit": str(limit)}
    params = {name: value for name, value in query.items() if value is not None}
    return Call(TypeAdapter(tuple[Event, ...]), "GET", "/v1/events", params)


def delete_stream(stream_id: str) -> Call[None]:
    """Delete a stream."""
    return Call(TypeAdapter(type(None)), "DELETE", _stream_path(stream_id))


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
    return Call(
        TypeAdapter(Result), "POST", f"{_stream_path(stream_id)}/frames", params, content, _content_type(content)
    )


def _model_path(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"


def _stream_path(stream_id: str) -> str:
    return f"/v1/streams/{quote(stream_id, safe='')}"


def _content_type(image: bytes) -> str:
    if image.startswith(b"\x89PNG"):
        return "image/png"
    return "image/webp" if image[:4] == b"RIFF" else "image/jpeg"
