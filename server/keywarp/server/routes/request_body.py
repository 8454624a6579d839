"""Read request bodies up to a limit."""

from fastapi import Request

from keywarp.server.errors import TooLargeError


async def read_body(request: Request, limit: int) -> bytes:
    """Read a whole body.

    Args:
        request: The request.
        limit: The most bytes that the body may have.

    Raises:
        TooLargeError: The body is larger than the limit.
    """
    check_content_length(request, limit)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise TooLargeError(limit)
    return bytes(body)


def check_content_length(request: Request, limit: int) -> None:
    """Refuse a body whose declared length is over the limit, before any of it is read.

    Raises:
        TooLargeError: The header `Content-Length` exceeds the limit.
    """
    if (length := request.headers.get("content-length", "0")).isdecimal() and int(length) > limit:
        raise TooLargeError(limit)
