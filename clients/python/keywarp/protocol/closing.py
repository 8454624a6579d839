"""WebSocket close codes: the standard ones that Keywarp uses, and its own (4400 to 4499)."""

from enum import IntEnum


class CloseCode(IntEnum):
    """Why a connection was closed. Our own codes are 4000 plus the HTTP status of the same meaning."""

    NORMAL = 1000  # after `done`
    UNSUPPORTED_DATA = 1003
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400  # the message isn't one of this protocol, or isn't expected now
    NOT_FOUND = 4404  # there is no such model
    HELLO_TIMEOUT = 4408  # the client connected, but sent no `hello` in time
    STREAM_BUSY = 4409  # another connection feeds this stream
    STREAM_GONE = 4410  # the stream was deleted, or expired while it was idle
    BAD_MEDIA = 4422  # the video can't be decoded
    TAKEN_OVER = 4423  # the stream goes on over another connection, whose `hello` has resumed it
    CREDIT_EXCEEDED = 4429  # the client sent more messages than the credit allows
