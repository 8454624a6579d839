"""Binary messages: a 4-byte little-endian header length, a JSON header, the payload."""

import struct

from pydantic import Field, ValidationError

from keywarp.protocol.messages import ClientId, Request

_LENGTH = struct.Struct("<I")
MAX_HEADER_BYTES = 4096


class FramingError(ValueError):
    """A binary message isn't framed as the protocol says."""


class FrameHeader(Request):
    """What a client says of one payload."""

    id: ClientId | None = None  # given back with the result
    timestamp: float | None = Field(default=None, allow_inf_nan=False)  # seconds; given back with the result


def pack(header: FrameHeader, payload: bytes) -> bytes:
    """Make one binary message."""
    head = header.model_dump_json(exclude_none=True).encode()
    return b"".join((_LENGTH.pack(len(head)), head, payload))


def unpack(message: bytes) -> tuple[FrameHeader, memoryview]:
    """Read one binary message; the payload is a view of it, not a copy.

    Raises:
        FramingError: The message is too short, or its header too long or not valid.
    """
    if len(message) < _LENGTH.size:
        raise FramingError(f"a binary message has at least {_LENGTH.size} bytes, this one {len(message)}")
    (length,) = _LENGTH.unpack_from(message)
    end = _LENGTH.size + length
    if length > MAX_HEADER_BYTES:
        raise FramingError(f"the header's length is {length} bytes, at most {MAX_HEADER_BYTES} are allowed")
    if end > len(message):
        raise FramingError(
            f"the header should be {length} bytes, but the message ends after {len(message) - _LENGTH.size}"
        )
    try:
        header = FrameHeader.model_validate_json(message[_LENGTH.size : end])
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'header'}: {e['msg']}" for e in error.errors())
        raise FramingError(f"the frame header is not valid: {faults}") from error
    return header, memoryview(message)[end:]
