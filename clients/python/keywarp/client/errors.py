"""The errors of the client, which have one base class.

KeywarpError
├── SourceError             a video, folder or camera can't be opened or read, or an image can't be sent
│   └── SourceOptionError       an option means nothing for this kind of source                     .option
├── ConnectError            no server responds at the address, or the connection broke
│   └── ResumeError             the connection broke, and the stream can't continue over another
├── ApiError                the server refused a request               .status, .problem, .retry_after
├── FrameError              the server could not process one frame                  .problem, .frame, .id
├── StreamError             the server ended the stream                      .code, .problem, .retry_after
│   ├── ModelNotFoundError      it has no such model (4404)
│   ├── StreamBusyError         another connection feeds this stream (4409)
│   ├── StreamGoneError         the stream was deleted or has expired (4410)
│   ├── StreamTakenOverError    it goes on over another connection, which has resumed it (4423)
│   ├── MediaError              it can't decode the video (1003, 1009, 4422)
│   └── UnavailableError        it is restarting, or full: try again later (1001, 1012, 1013)
├── ProtocolError           the server doesn't speak `keywarp.v1`
├── DrawingError            annotated pictures or videos can't be made
└── TableError              results can't be made a table
"""

from keywarp.protocol import ClientId, CloseCode, Problem
from keywarp.protocol.addresses import hide_secrets


class KeywarpError(Exception):
    """The base of all errors that this package raises on purpose.

    Their text is one sentence for users. Addresses in it are without users, passwords and queries.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(hide_secrets(text))


class SourceError(KeywarpError):
    """A video, folder or camera can't be opened or read, or an image can't be sent."""


class SourceOptionError(SourceError):
    """An option means nothing for this kind of source.

    Attributes:
        option: The option's name in Python.
        reason: Why it can't be used.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"the option `{option}` can't be used: {reason}")
        self.option = option
        self.reason = reason


class ConnectError(KeywarpError):
    """No server responds at the address, or the connection broke."""


class ResumeError(ConnectError):
    """The connection broke, and the stream can't continue over another one without losing frames."""


class ProtocolError(KeywarpError):
    """The server doesn't speak `keywarp.v1`."""


class DrawingError(KeywarpError):
    """Annotated pictures or videos can't be made."""


class TableError(KeywarpError):
    """Results can't be made a table, because the extra `pandas` isn't installed."""


class ApiError(KeywarpError):
    """The server refused a request.

    Attributes:
        status: The HTTP status.
        problem: The server's problem details.
        retry_after: Seconds after which to try again, or None if the server doesn't say.
    """

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(sentence(problem))
        self.status = problem.status
        self.problem = problem
        self.retry_after = retry_after


class FrameError(KeywarpError):
    """The server could not process one frame; the stream continues without it.

    Attributes:
        problem: The server's problem details.
        frame: The frame's position in the stream, or None if the server doesn't know it.
        id: The id that the client gave the frame, or None.
    """

    def __init__(self, problem: Problem, frame: int | None = None, id: ClientId | None = None) -> None:  # noqa: A002
        where = f"frame {frame}: " if frame is not None else ""
        super().__init__(where + sentence(problem))
        self.problem = problem
        self.frame = frame
        self.id = id


class StreamError(KeywarpError):
    """The server ended the stream.

    Attributes:
        code: The WebSocket close code (`keywarp.protocol.CloseCode`).
        problem: The server's problem details, or None if it sent none.
        retry_after: Seconds after which to try again, or None if the server doesn't say.
    """

    def __init__(self, code: int, reason: str = "", problem: Problem | None = None) -> None:
        what = sentence(problem) if problem else reason or _MEANING.get(code, "no reason given")
        super().__init__(f"the server ended the stream: {what} (close code {code})")
        self.code = code
        self.problem = problem
        self.retry_after: float | None = problem.retry_after if problem else None


class ModelNotFoundError(StreamError):
    """The server has no such model."""


class StreamBusyError(StreamError):
    """Another connection feeds this stream."""


class StreamGoneError(StreamError):
    """The stream was deleted or has expired."""


class StreamTakenOverError(StreamError):
    """The stream goes on over another connection, which has resumed it: two programs use the same id."""


class MediaError(StreamError):
    """The server can't decode the video."""


class UnavailableError(StreamError):
    """The server is restarting, or full: try again later."""


_GOING_AWAY = 1001  # a server or proxy is stopping (RFC 6455, section 7.4.1)

_KINDS: dict[int, type[StreamError]] = {
    _GOING_AWAY: UnavailableError,
    CloseCode.UNSUPPORTED_DATA: MediaError,
    CloseCode.MESSAGE_TOO_BIG: MediaError,
    CloseCode.SERVICE_RESTART: UnavailableError,
    CloseCode.TRY_AGAIN_LATER: UnavailableError,
    CloseCode.NOT_FOUND: ModelNotFoundError,
    CloseCode.STREAM_BUSY: StreamBusyError,
    CloseCode.STREAM_GONE: StreamGoneError,
    CloseCode.TAKEN_OVER: StreamTakenOverError,
    CloseCode.BAD_MEDIA: MediaError,
}

_MEANING: dict[int, str] = {
    _GOING_AWAY: "it is going away",
    CloseCode.UNSUPPORTED_DATA: "it doesn't accept this kind of data",
    CloseCode.MESSAGE_TOO_BIG: "a message was too big",
    CloseCode.INTERNAL_ERROR: "it failed",
    CloseCode.SERVICE_RESTART: "it is restarting",
    CloseCode.TRY_AGAIN_LATER: "it is full, try again later",
    CloseCode.NOT_FOUND: "it has no such model",
    CloseCode.STREAM_BUSY: "another connection feeds this stream",
    CloseCode.STREAM_GONE: "the stream was deleted or has expired",
    CloseCode.TAKEN_OVER: "the stream goes on over another connection",
    CloseCode.BAD_MEDIA: "it can't decode the video",
}


def stream_error(code: int, reason: str = "", problem: Problem | None = None) -> StreamError:
    """Return the error that a close code stands for."""
    return _KINDS.get(code, StreamError)(code, reason, problem)


def sentence(problem: Problem) -> str:
    """Return the sentence that describes a problem."""
    return problem.detail or problem.title
