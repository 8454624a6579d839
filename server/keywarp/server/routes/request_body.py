"""Read request bodies up to a limit, and no longer than it takes."""

import asyncio
import re
from collections.abc import Callable
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keywarp.server.errors import (
    BadMessageError,
    BodyTimeoutError,
    CapacityError,
    OverloadError,
    ServerError,
    TooLargeError,
)
from keywarp.server.payload_memory import PayloadMemory
from keywarp.server.problems import refuse

MAX_JSON: Final = 2**20  # bytes of a body that describes something
STALL: Final = 10.0  # seconds that may pass without a byte
MIN_RATE: Final = 64 * 2**10  # bytes per second, after the first seconds
# The paths whose routes read their bodies themselves.
_MEDIA: Final = re.compile(r"/v1/videos(/annotated)?|/v1/streams/[^/]*/frames|/v2/.*")


async def read_body(request: Request, limit: int, memory: PayloadMemory) -> bytes:
    """Read a whole body.

    Args:
        request: The request.
        limit: The most bytes that the body may have.
        memory: Counts the bytes while they arrive.

    Raises:
        OverloadError: There is no memory for more bodies.
        TooLargeError: The body is larger than the limit.
        BodyTimeoutError: The body doesn't come, or too slowly.
    """
    check_content_length(request, limit)
    body, loop = bytearray(), asyncio.get_running_loop()
    started, counted = loop.time(), 0
    try:
        async with asyncio.timeout(STALL) as deadline:
            async for piece in request.stream():
                memory.add(len(piece))
                counted += len(piece)
                body += piece
                if len(body) > limit:
                    raise TooLargeError(limit)
                deadline.reschedule(min(loop.time() + STALL, started + STALL + len(body) / MIN_RATE))
    except TimeoutError:
        raise BodyTimeoutError(f"the rest of the body didn't come in time, after {len(body)} bytes") from None
    finally:
        memory.free(counted)
    return bytes(body)


def check_content_length(request: Request, limit: int) -> None:
    """Refuse a body whose declared length is over the limit, before any of it is read.

    Raises:
        TooLargeError: The header `Content-Length` exceeds the limit.
    """
    if (length := request.headers.get("content-length", "0")).isdecimal() and int(length) > limit:
        raise TooLargeError(limit)


class BodyMiddleware:
    """Middleware that reads the bodies of requests whose routes don't do that themselves.

    It also refuses requests that say in two ways where their body ends, on which a proxy could disagree (RFC 9112,
    section 6.3).
    """

    def __init__(self, app: ASGIApp, memory: PayloadMemory, count_refused: Callable[[str], None]) -> None:
        """Wrap an application.

        Args:
            app: The application.
            memory: Counts the bytes of bodies while they arrive.
            count_refused: Called with the reason of each request that is refused for lack of memory.
        """
        self._app = app
        self._memory = memory
        self._count_refused = count_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        try:
            if "content-length" in request.headers and "transfer-encoding" in request.headers:
                raise BadMessageError("a request has either Content-Length or Transfer-Encoding, not both")
            if not has_body or _MEDIA.fullmatch(scope["path"]):
                await self._app(scope, receive, send)
                return
            body: bytes | None = await read_body(request, MAX_JSON, self._memory)
        except ClientDisconnect:
            return
        except (BadMessageError, BodyTimeoutError, OverloadError, TooLargeError) as error:
            if isinstance(error, CapacityError):
                self._count_refused(error.reason)
            await _refuse_and_close(error, scope, receive, send)
            return

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        await self._app(scope, replay, send)


async def _refuse_and_close(error: ServerError, scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with an error, and don't read what may still come of the body."""

    async def closing_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    await refuse(error, scope, receive, closing_send)
