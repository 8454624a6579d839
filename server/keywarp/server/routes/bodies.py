"""Reading bodies of requests, no more of them than allowed."""

from fastapi import Request

from keywarp.server.errors import TooLargeError


async def read_body(request: Request, limit: int) -> bytes:
    """Read a whole body.

    Raises:
        TooLargeError: It is larger than `limit` bytes; no more than that was read.
    """
    refuse_length(request, limit)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise TooLargeError(limit)
    return bytes(body)


def refuse_length(request: Request, limit: int) -> None:
    """Refuse a body that says itself that it is too large.

    Raises:
        TooLargeError: It does.
    """
    if (length := request.headers.get("content-length", "0")).isdecimal() and int(length) > limit:
        raise TooLargeError(limit)
