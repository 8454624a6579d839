"""Responses that consist of JSON lines."""

from typing import Final

from pydantic import BaseModel

MEDIA_TYPE: Final = "application/x-ndjson"
LAST_LINE_TIMEOUT: Final = 5.0  # seconds that a client may take to read the last line


def encode_line(message: BaseModel) -> bytes:
    """Encode a message as one line of JSON, without the fields that are None."""
    return message.model_dump_json(exclude_none=True).encode() + b"\n"
