"""Respond to every HTTP error with RFC 9457 problem details."""

import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from keywarp.protocol import Problem, faults
from keywarp.server.errors import CapacityError, InternalError, ServerError, UnauthorizedError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER = {HTTPStatus.SERVICE_UNAVAILABLE: 5}  # seconds, unless the problem has its own


def problem_response(problem: Problem, path: str, headers: dict[str, str] | None = None) -> Response:
    """Make the response to a request for a path that failed. Clients of `/v2` need a member `error`."""
    headers = dict(headers or {})
    if seconds := problem.retry_after or _RETRY_AFTER.get(HTTPStatus(problem.status)):
        headers.setdefault("Retry-After", str(seconds))
    content = problem.model_dump(exclude_none=True)
    if path.startswith("/v2"):
        content["error"] = problem.detail or problem.title
    return Response(json.dumps(content), problem.status, headers, MEDIA_TYPE)


async def refuse(error: ServerError, scope: Scope, receive: Receive, send: Send) -> None:
    """Respond to an HTTP request or a WebSocket handshake with an error, before it reaches the application."""
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, UnauthorizedError) else None
    response = problem_response(error.problem, scope["path"], headers)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the argument `responses` of a route that can fail with these statuses, for OpenAPI."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(s): {"description": s.phrase, "model": Problem, "content": content} for s in statuses}


def install(app: FastAPI, count_refused: Callable[[str], None]) -> None:
    """Make an application respond to every error with problem details.

    Args:
        app: The application.
        count_refused: Called with the reason of each request that is refused for lack of capacity.
    """

    async def server_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServerError)
        if isinstance(error, CapacityError):
            count_refused(error.reason)
        return problem_response(error.problem, request.url.path)

    app.add_exception_handler(ServerError, server_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(_InternalErrorMiddleware)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = "" if error.detail == status.phrase else error.detail
    headers = dict(error.headers) if error.headers else None
    return problem_response(Problem(title=status.phrase, status=status, detail=detail), request.url.path, headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    detail = faults.describe(error)[:500]
    return problem_response(Problem(title=status.phrase, status=status, detail=detail), request.url.path)


class _InternalErrorMiddleware:
    """Middleware that logs an unexpected exception once, and responds with status 500 without the details.

    An exception handler for `Exception` wouldn't do: after it has responded, Starlette raises the exception again, and
    the ASGI server logs it a second time and drops the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False  # whether a part of the response has been sent

        async def observed_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        except ClientDisconnect:
            log.info("%s %r: the client disconnected", scope["method"], scope["path"][:200])
        except Exception:
            if has_started:
                raise
            log.exception("%s %r failed", scope["method"], scope["path"][:200])
            response = problem_response(
                InternalError("the server failed; its log has the details").problem, scope["path"]
            )
            await response(scope, receive, send)
