"""WebSocket close codes: the standard ones that Keywarp uses, and its own (4400-4499)."""

from enum import IntEnum


class CloseCode(IntEnum):
    """Why a conversation ended. Ours mirror the HTTP status of the same meaning, plus 4000."""

    NORMAL = 1000  # after `done`
    UNSUPPORTED_DATA = 1003
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_MESSAGE = 4400  # not a message of this protocol, or not at this point
    NOT_FOUND = 4404  # no such model
    HELLO_TIMEOUT = 4408  # connected, but never said hello
    STREAM_BUSY = 4409  # another connection feeds this stream
    STREAM_GONE = 4410  # deleted, or expired while idle
    BAD_MEDIA = 4422  # the video can't be decoded
    CREDIT_EXCEEDED = 4429  # more frames than the credit allows
