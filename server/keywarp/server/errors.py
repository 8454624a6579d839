"""What the server refuses, as exceptions; each knows its HTTP status, WebSocket close code and metric label.

ServerError
├── BadMessageError        400 / 4400  not a message of the protocol, or not at this point
├── UnauthorizedError      401 / 1008  no API key, or not one of this server
├── ForbiddenError         403 / 1008  an API key that isn't for this, or a server that doesn't do it
├── UnknownModelError      404 / 4404
├── UnknownStreamError     404 / 4404
├── HelloTimeoutError      408 / 4408  connected, but never said hello
├── StreamConflictError    409 / 4409  the stream exists already, or another connection feeds it
├── StreamClosedError        410 / 4410  deleted, or expired while idle
├── TooLargeError          413 / 1009  a message or body of too many bytes
├── UnsupportedMediaError  415 / 4400  a body of a kind that can't be decoded
├── CreditExceededError    429 / 4429  more messages than the credit allows
├── CapacityError                      there is no room now, but there will be
│   ├── TooManyStreamsError 429 / 1013
│   ├── TooManyFramesError 429         of one API key in a second; over WebSockets they wait or are dropped
│   └── OverloadError      503 / 1013  the device can't serve more streams
├── InternalError          500 / 1011
├── NotReadyError          503 / 1013  the models are still being loaded
├── DrainingError          503 / 1012  the server stops
├── LoadFailedError        422 / 1011  a model that can't be loaded
├── BadVideoError          422 / 4422  the video can't be decoded
└── FrameRefusedError                  one frame's fault; its stream goes on
    ├── TooManyPixelsError 413
    ├── NotAnImageError    415
    ├── DamagedImageError  422
    ├── DamagedVideoError  422
    └── FrameFailedError   500             the engine failed on it
"""

from http import HTTPStatus
from typing import ClassVar, Literal

from keywarp.protocol import ClientId, CloseCode, Problem

_MAX_DETAIL = 500  # characters
_MAX_CLOSE_REASON = 123  # bytes (RFC 6455, section 5.5)


class KeyFileError(Exception):
    """The file of API keys can't be used; for the operator."""


class ServerError(Exception):
    """Base class: a refusal whose message is meant for the client (so never a path, never a trace)."""

    status: ClassVar[HTTPStatus]
    close: ClassVar[CloseCode]
    reason: str  # in metrics
    retry_after: int | None = None  # seconds after which to try again

    @property
    def problem(self) -> Problem:
        """The RFC 9457 form."""
        return Problem(
            title=self.status.phrase,
            status=self.status,
            detail=str(self)[:_MAX_DETAIL],
            retry_after=self.retry_after,
        )

    @property
    def close_reason(self) -> str:
        """The message, cut to what a close frame holds."""
        return str(self).encode()[:_MAX_CLOSE_REASON].decode(errors="ignore")


class BadMessageError(ServerError):
    """Not a message of the protocol, or not at this point."""

    status, close, reason = HTTPStatus.BAD_REQUEST, CloseCode.BAD_MESSAGE, "bad_message"


class UnauthorizedError(ServerError):
    """No API key, or not one of this server."""

    status, close, reason = HTTPStatus.UNAUTHORIZED, CloseCode.POLICY_VIOLATION, "unauthorized"


class ForbiddenError(ServerError):
    """An API key that isn't for this, or a server that doesn't do it for anybody."""

    status, close, reason = HTTPStatus.FORBIDDEN, CloseCode.POLICY_VIOLATION, "forbidden"


class UnknownModelError(ServerError):
    """No model of this name is loaded."""

    status, close, reason = HTTPStatus.NOT_FOUND, CloseCode.NOT_FOUND, "unknown_model"


class UnknownStreamError(ServerError):
    """No stream has this id."""

    status, close, reason = HTTPStatus.NOT_FOUND, CloseCode.NOT_FOUND, "unknown_stream"


class HelloTimeoutError(ServerError):
    """The client connected, but never said hello."""

    status, close, reason = HTTPStatus.REQUEST_TIMEOUT, CloseCode.HELLO_TIMEOUT, "hello_timeout"


class StreamConflictError(ServerError):
    """The stream exists already, or another connection feeds it."""

    status, close, reason = HTTPStatus.CONFLICT, CloseCode.STREAM_BUSY, "stream_conflict"


class StreamClosedError(ServerError):
    """The stream was deleted, or expired while idle."""

    status, close, reason = HTTPStatus.GONE, CloseCode.STREAM_GONE, "stream_gone"


class TooLargeError(ServerError):
    """A body of too many bytes."""

    status, close, reason = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, CloseCode.MESSAGE_TOO_BIG, "too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")


class UnsupportedMediaError(ServerError):
    """A body of a kind that can't be decoded."""

    status, close, reason = HTTPStatus.UNSUPPORTED_MEDIA_TYPE, CloseCode.BAD_MESSAGE, "unsupported_media"


class CreditExceededError(ServerError):
    """The client sent more messages than its credit allows."""

    status, close, reason = HTTPStatus.TOO_MANY_REQUESTS, CloseCode.CREDIT_EXCEEDED, "credit_exceeded"


class CapacityError(ServerError):
    """There is no room now, but there will be. Counted by its reason, which is the name of the limit."""

    status, close = HTTPStatus.TOO_MANY_REQUESTS, CloseCode.TRY_AGAIN_LATER
    retry_after = 5


class TooManyStreamsError(CapacityError):
    """The server, or that for which there is a limit, has as many streams as it may; or a stream has its watchers."""

    def __init__(self, detail: str, limit: Literal["max_streams", "model_limit", "key_streams", "watchers"]) -> None:
        super().__init__(detail)
        self.reason = limit


class TooManyFramesError(CapacityError):
    """An API key's frames come faster than they may."""

    reason = "key_rate"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class OverloadError(CapacityError):
    """The device can't serve more streams than there are."""

    status, reason = HTTPStatus.SERVICE_UNAVAILABLE, "overload"


class InternalError(ServerError):
    """A fault of ours; the log has the details."""

    status, close, reason = HTTPStatus.INTERNAL_SERVER_ERROR, CloseCode.INTERNAL_ERROR, "internal"


class NotReadyError(ServerError):
    """The models are still being loaded."""

    status, close, reason = HTTPStatus.SERVICE_UNAVAILABLE, CloseCode.TRY_AGAIN_LATER, "not_ready"


class DrainingError(ServerError):
    """The server finishes what it has and takes nothing new."""

    status, close, reason = HTTPStatus.SERVICE_UNAVAILABLE, CloseCode.SERVICE_RESTART, "draining"


class LoadFailedError(ServerError):
    """The bundle of a model can't be used, compiled or run."""

    status, close, reason = HTTPStatus.UNPROCESSABLE_ENTITY, CloseCode.INTERNAL_ERROR, "load_failed"


class BadVideoError(ServerError):
    """The video can't be decoded."""

    status, close, reason = HTTPStatus.UNPROCESSABLE_ENTITY, CloseCode.BAD_MEDIA, "bad_video"


class SourceForbiddenError(ServerError):
    """A stream is to be pulled from where the operator hasn't allowed it."""

    status, close, reason = HTTPStatus.FORBIDDEN, CloseCode.POLICY_VIOLATION, "source_forbidden"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"this server doesn't pull from {host[:64]!r}, port {port}: `serve --allow-pull` would let it")


class PullError(ServerError):
    """A stream can't be pulled from its source now."""

    status, close, reason = HTTPStatus.BAD_GATEWAY, CloseCode.BAD_MEDIA, "source"


class SiteError(Exception):
    """The file of streams and sinks can't be used; for the operator."""


class DecoderError(Exception):
    """Video is to be decoded by a GPU that can't do it; for the operator."""


class TracesError(Exception):
    """Traces are asked for, but can't be exported; for the operator."""


class SinkError(Exception):
    """A sink didn't take answers; for the operator."""


class SinkRefusalError(SinkError):
    """A sink doesn't want just these answers, now or later."""


class NotPulledError(ServerError):
    """A stream that clients feed can't be paused."""

    status, close, reason = HTTPStatus.CONFLICT, CloseCode.STREAM_BUSY, "not_pulled"


class FrameRefusedError(ServerError):
    """One frame can't be processed. It is answered with an error, and its stream continues."""

    close = CloseCode.BAD_MEDIA

    def __init__(self, detail: str, id_: ClientId | None = None) -> None:
        """Describe the fault.

        Args:
            detail: The message for the client.
            id_: The producer's id of the frame, where it is known.
        """
        super().__init__(detail)
        self.id = id_


class TooManyPixelsError(FrameRefusedError):
    """The frame is larger than the server decodes."""

    status, reason = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_pixels"


class NotAnImageError(FrameRefusedError):
    """Neither JPEG nor PNG nor WebP."""

    status, reason = HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_an_image"


class DamagedImageError(FrameRefusedError):
    """It starts like an image, but can't be decoded as a whole."""

    status, reason = HTTPStatus.UNPROCESSABLE_ENTITY, "damaged_image"


class DamagedVideoError(FrameRefusedError):
    """One access unit of a video can't be decoded."""

    status, reason = HTTPStatus.UNPROCESSABLE_ENTITY, "damaged_video"


class FrameFailedError(FrameRefusedError):
    """The engine failed on this frame; the log has the details."""

    status, reason = HTTPStatus.INTERNAL_SERVER_ERROR, "engine"
