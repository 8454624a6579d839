"""Binary messages: a 4-byte little-endian header length, the header as JSON, and the payload."""

import struct

from pydantic import Field, ValidationError

from keywarp.protocol import faults
from keywarp.protocol.messages import ClientId, Request

_LENGTH = struct.Struct("<I")
MAX_HEADER_BYTES = 4096


class FramingError(ValueError):
    """A binary message doesn't follow the protocol's framing."""


class FrameHeader(Request):
    """The header of a binary message. Its id and timestamp are returned with the result."""

    id: ClientId | None = None
    timestamp: float | None = Field(default=None, allow_inf_nan=False)  # seconds
    gap: bool | None = None  # whether frames are missing before this image, or a part of this packet
    discard: bool | None = None  # whether the packet is only needed to decode others, and gives no result itself


def pack(header: FrameHeader, payload: bytes) -> bytes:
    """Pack one binary message."""
    head = header.model_dump_json(exclude_none=True).encode()
    return b"".join((_LENGTH.pack(len(head)), head, payload))


def unpack(message: bytes) -> tuple[FrameHeader, memoryview]:
    """Unpack one binary message. The payload is a view of the message, not a copy.

    Raises:
        FramingError: If the message is too short, or its header is too long or not valid.
    """
    if len(message) < _LENGTH.size:
        raise FramingError(f"a binary message has at least {_LENGTH.size} bytes, this one has {len(message)}")
    (length,) = _LENGTH.unpack_from(message)
    end = _LENGTH.size + length
    if length > MAX_HEADER_BYTES:
        raise FramingError(f"the header is {length} bytes long, but at most {MAX_HEADER_BYTES} are allowed")
    if end > len(message):
        raise FramingError(
            f"the header should be {length} bytes long, but the message ends after {len(message) - _LENGTH.size}"
        )
    try:
        header = FrameHeader.model_validate_json(message[_LENGTH.size : end])
    except ValidationError as error:
        raise FramingError(f"the frame header is not valid: {faults.describe(error, whole='header')}") from error
    return header, memoryview(message)[end:]
