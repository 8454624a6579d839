"""The server's errors. A `ServerError` knows its HTTP status, its WebSocket close code, and its label in metrics.

ServerError
├── BadMessageError        400 / 4400  not a message of the protocol, or not allowed now
├── UnauthorizedError      401 / 1008  no valid API key
├── ForbiddenError         403 / 1008  not allowed with this API key, or on this server
├── SourceForbiddenError   403 / 1008  a source whose host isn't on the allow-list
├── UnknownModelError      404 / 4404  no such model
├── UnknownStreamError     404 / 4404  no such stream
├── UnknownEventError      404 / 4404  no such event, or it has no snapshot
├── HelloTimeoutError      408 / 4408  a connection that sent no `hello`
├── BodyTimeoutError       408         a body that doesn't come, or too slowly
├── StreamConflictError    409 / 4409  the stream exists already, or another producer feeds it
├── NotPulledError         409 / 4409  pause or resume of a stream that isn't pulled
├── StreamClosedError      410 / 4410  the stream was deleted, or expired while idle
├── StreamTakenOverError   423 / 4423  the client goes on over another connection
├── TooLargeError          413 / 1009  a message or body with too many bytes
├── UnsupportedMediaError  415 / 4400  a body that can't be decoded
├── LoadFailedError        422 / 1011  a model that can't be loaded
├── ReloadError            422 / 1011  a site file or keys that can't be used
├── BadVideoError          422 / 4422  a video that can't be decoded
├── CreditExceededError    429 / 4429  more messages than the credit allows
├── CapacityError                      a limit is reached; try again later
│   ├── TooManyStreamsError 429 / 1013
│   ├── TooManyFramesError 429         more frames per second than the API key may send
│   └── OverloadError      503 / 1013  the devices can't serve more streams, or the memory is full
├── InternalError          500 / 1011  a fault of the server
├── EventStoreError        500 / 1011  events can't be kept or read
├── PullError              502 / 4422  a source that can't be read now
├── NotReadyError          503 / 1013  the models are still being loaded
├── DrainingError          503 / 1012  the server is stopping
└── FrameRefusedError                  one frame can't be processed; its stream continues
    ├── ImageRefusedError  413, 415 or 422, by the error of the reader (`keywarp.images.errors`)
    ├── DamagedVideoError  422
    ├── SizeRefusedError   503         a further frame size, while all that may be compiled are in use
    └── FrameFailedError   500         the engine failed on the frame

The other errors are for the operator: KeyFileError, SiteError, CameraStoreError, DecoderError, TracesError, and
SinkError with SinkRefusalError.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar, Final, Literal

from keywarp.images import (
    DamagedImageError,
    ImageError,
    NotAnImageError,
    TooManyPixelsError,
    UnsupportedImageError,
)
from keywarp.protocol import ClientId, CloseCode, Problem

LimitName = Literal["max_streams", "model_limit", "key_streams", "address_streams", "watchers", "annotations"]
_MAX_DETAIL = 500  # characters
_MAX_CLOSE_REASON = 123  # bytes (RFC 6455, section 5.5)
# The status and the label in metrics for each error of the reader of images.
_IMAGE_ERRORS: Final[Mapping[type[ImageError], tuple[HTTPStatus, str]]] = {
    TooManyPixelsError: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_pixels"),
    NotAnImageError: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_an_image"),
    UnsupportedImageError: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_image"),
    DamagedImageError: (HTTPStatus.UNPROCESSABLE_ENTITY, "damaged_image"),
}


class KeyFileError(Exception):
    """The file of API keys can't be used."""


class ServerError(Exception):
    """Base class. The message is for the client, so it never holds a path or a traceback."""

    status: HTTPStatus
    close: ClassVar[CloseCode]
    reason: str  # the label in metrics
    retry_after: int | None = None  # seconds after which the client may try again

    @property
    def problem(self) -> Problem:
        """The error in the form of RFC 9457."""
        return Problem(
            title=self.status.phrase,
            status=self.status,
            detail=str(self)[:_MAX_DETAIL],
            retry_after=self.retry_after,
        )

    @property
    def close_reason(self) -> str:
        """The message, truncated to what a close frame holds."""
        return str(self).encode()[:_MAX_CLOSE_REASON].decode(errors="ignore")


class BadMessageError(ServerError):
    """The message doesn't follow the protocol, or isn't allowed now."""

    status, close, reason = HTTPStatus.BAD_REQUEST, CloseCode.BAD_MESSAGE, "bad_message"


class UnauthorizedError(ServerError):
    """The request has no valid API key."""

    status, close, reason = HTTPStatus.UNAUTHORIZED, CloseCode.POLICY_VIOLATION, "unauthorized"


class ForbiddenError(ServerError):
    """The API key, or the server, doesn't allow the request."""

    status, close, reason = HTTPStatus.FORBIDDEN, CloseCode.POLICY_VIOLATION, "forbidden"


class UnknownModelError(ServerError):
    """There is no loaded model with this name."""

    status, close, reason = HTTPStatus.NOT_FOUND, CloseCode.NOT_FOUND, "unknown_model"


class UnknownStreamError(ServerError):
    """There is no stream with this id."""

    status, close, reason = HTTPStatus.NOT_FOUND, CloseCode.NOT_FOUND, "unknown_stream"


class UnknownEventError(ServerError):
    """There is no event with this id, or it has no snapshot."""

    status, close, reason = HTTPStatus.NOT_FOUND, CloseCode.NOT_FOUND, "unknown_event"


class HelloTimeoutError(ServerError):
    """The client connected, but sent no `hello` in time."""

    status, close, reason = HTTPStatus.REQUEST_TIMEOUT, CloseCode.HELLO_TIMEOUT, "hello_timeout"


class BodyTimeoutError(ServerError):
    """A request's body doesn't come, or too slowly."""

    status, close, reason = HTTPStatus.REQUEST_TIMEOUT, CloseCode.BAD_MESSAGE, "body_timeout"


class StreamConflictError(ServerError):
    """The stream exists already, or another producer feeds it."""

    status, close, reason = HTTPStatus.CONFLICT, CloseCode.STREAM_BUSY, "stream_conflict"


class StreamClosedError(ServerError):
    """The stream was deleted, or expired while idle. Then its client may begin it again."""

    status, close, reason = HTTPStatus.GONE, CloseCode.STREAM_GONE, "stream_gone"

    def __init__(self, detail: str, *, expired: bool = False) -> None:
        """Describe the end.

        Args:
            detail: The message for the client.
            expired: Whether the stream expired.
        """
        super().__init__(detail)
        self.retry_after = 1 if expired else None


class StreamTakenOverError(ServerError):
    """The stream goes on over another connection of the same client, which has resumed it."""

    status, close, reason = HTTPStatus.LOCKED, CloseCode.TAKEN_OVER, "taken_over"


class TooLargeError(ServerError):
    """The body has too many bytes."""

    status, close, reason = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, CloseCode.MESSAGE_TOO_BIG, "too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")


class UnsupportedMediaError(ServerError):
    """The body is of a type that can't be decoded."""

    status, close, reason = HTTPStatus.UNSUPPORTED_MEDIA_TYPE, CloseCode.BAD_MESSAGE, "unsupported_media"


class CreditExceededError(ServerError):
    """The client sent more messages than its credit allows."""

    status, close, reason = HTTPStatus.TOO_MANY_REQUESTS, CloseCode.CREDIT_EXCEEDED, "credit_exceeded"


class CapacityError(ServerError):
    """Base class: a limit is reached, but there may be room later. The reason is the name of the limit."""

    status, close = HTTPStatus.TOO_MANY_REQUESTS, CloseCode.TRY_AGAIN_LATER
    retry_after = 5


class TooManyStreamsError(CapacityError):
    """The server, the model or the API key has reached its limit of streams, or a stream its limit of subscribers."""

    def __init__(self, detail: str, limit: LimitName) -> None:
        super().__init__(detail)
        self.reason = limit


class TooManyFramesError(CapacityError):
    """An API key sends more frames per second than allowed."""

    reason = "key_rate"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class OverloadError(CapacityError):
    """The devices can't serve more streams, or there is no memory for more payloads."""

    status, reason = HTTPStatus.SERVICE_UNAVAILABLE, "overload"


class InternalError(ServerError):
    """The server has a fault. The log has the details."""

    status, close, reason = HTTPStatus.INTERNAL_SERVER_ERROR, CloseCode.INTERNAL_ERROR, "internal"


class EventStoreError(ServerError):
    """Events can't be kept or read."""

    status, close, reason = HTTPStatus.INTERNAL_SERVER_ERROR, CloseCode.INTERNAL_ERROR, "event_store"


class NotReadyError(ServerError):
    """The models are still being loaded."""

    status, close, reason = HTTPStatus.SERVICE_UNAVAILABLE, CloseCode.TRY_AGAIN_LATER, "not_ready"
    retry_after = 1


class DrainingError(ServerError):
    """The server is stopping: it finishes its queued work and accepts no new work."""

    status, close, reason = HTTPStatus.SERVICE_UNAVAILABLE, CloseCode.SERVICE_RESTART, "draining"
    retry_after = 1  # a proxy has other servers


class LoadFailedError(ServerError):
    """The model's bundle can't be used, compiled or run."""

    status, close, reason = HTTPStatus.UNPROCESSABLE_ENTITY, CloseCode.INTERNAL_ERROR, "load_failed"


class BadVideoError(ServerError):
    """The video can't be decoded."""

    status, close, reason = HTTPStatus.UNPROCESSABLE_ENTITY, CloseCode.BAD_MEDIA, "bad_video"


class CannotEncodeError(ServerError):
    """The server can't encode video."""

    status, close, reason = HTTPStatus.NOT_IMPLEMENTED, CloseCode.INTERNAL_ERROR, "no_encoder"


class SourceForbiddenError(ServerError):
    """The stream's source has a host that isn't on the allow-list."""

    status, close, reason = HTTPStatus.FORBIDDEN, CloseCode.POLICY_VIOLATION, "source_forbidden"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"this server may not pull from {host[:64]!r}, port {port}: allow it with `serve --allow-pull`"
        )


class ReloadError(ServerError):
    """The operator's files can't be used. The server goes on with what it had."""

    status, close, reason = HTTPStatus.UNPROCESSABLE_ENTITY, CloseCode.INTERNAL_ERROR, "reload"


class PullError(ServerError):
    """The stream's source can't be read now."""

    status, close, reason = HTTPStatus.BAD_GATEWAY, CloseCode.BAD_MEDIA, "source"

    def __init__(self, detail: str, *, lasting: bool = False, unauthorized: bool = False) -> None:
        """Describe the fault.

        Args:
            detail: The message for the client.
            lasting: Whether it probably lasts until somebody mends it, because the source did respond.
            unauthorized: Whether the source refuses the user and password. It may lock them after a few attempts.
        """
        super().__init__(detail)
        self.lasting = lasting
        self.unauthorized = unauthorized


class CameraStoreError(Exception):
    """The database of cameras can't be used."""


class SiteError(Exception):
    """The file of streams and sinks can't be used."""


class DecoderError(Exception):
    """The settings ask for the GPU to decode video, but it can't."""


class TracesError(Exception):
    """The environment asks for traces, but they can't be exported."""


class SinkError(Exception):
    """A sink failed to deliver responses. A retry may help."""


class SinkRefusalError(SinkError):
    """A sink refuses these responses for good, so a retry won't help."""


class NotPulledError(ServerError):
    """The stream isn't pulled, so it can't be paused or resumed."""

    status, close, reason = HTTPStatus.CONFLICT, CloseCode.STREAM_BUSY, "not_pulled"


class FrameRefusedError(ServerError):
    """One frame can't be processed. The response to it is an error, and its stream continues."""

    close = CloseCode.BAD_MEDIA

    def __init__(self, detail: str, id_: ClientId | None = None) -> None:
        """Describe the fault.

        Args:
            detail: The message for the client.
            id_: The producer's id of the frame, or None if it is unknown.
        """
        super().__init__(detail)
        self.id = id_


class ImageRefusedError(FrameRefusedError):
    """The reader of images refuses the frame."""

    def __init__(self, error: ImageError, id_: ClientId | None = None) -> None:
        super().__init__(str(error), id_)
        self.status, self.reason = _IMAGE_ERRORS[type(error)]


class DamagedVideoError(FrameRefusedError):
    """A unit of the video can't be decoded."""

    status, reason = HTTPStatus.UNPROCESSABLE_ENTITY, "damaged_video"


class SizeRefusedError(FrameRefusedError):
    """The model is compiled for as many frame sizes as it may be, and all are in use."""

    status, reason = HTTPStatus.SERVICE_UNAVAILABLE, "too_many_sizes"
    retry_after = 60


class FrameFailedError(FrameRefusedError):
    """The engine failed on this frame. The log has the details."""

    status, reason = HTTPStatus.INTERNAL_SERVER_ERROR, "engine"
