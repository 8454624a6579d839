"""The WebSocket of a stream, protocol `keywarp.v1`: a state machine around a pipeline.

    receive -> inbox -> pipeline -> send

The inbox is bounded by the credit. A full stage makes the earlier stages wait, back to the client, which gets no more
credit. Receiving itself never waits for another stage, so a lost connection is noticed at once; it only waits while all
connections together hold more than there is memory for.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from enum import StrEnum
from typing import get_args

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, TypeAdapter, ValidationError

from keywarp.protocol import (
    SUBPROTOCOL,
    AgreedOptions,
    CameraOptions,
    ClientMessage,
    CloseCode,
    Container,
    Credit,
    Done,
    End,
    Error,
    FrameHeader,
    FramingError,
    Hello,
    Ready,
    faults,
    unpack,
)
from keywarp.protocol.events import Rules
from keywarp.protocol.messages import StreamId
from keywarp.server.decode.decoders import open_decoder
from keywarp.server.errors import (
    BadMessageError,
    CapacityError,
    CreditExceededError,
    DrainingError,
    HelloTimeoutError,
    InternalError,
    ServerError,
)
from keywarp.server.models.registry import describe
from keywarp.server.problems import problem_response
from keywarp.server.routes.dependencies import QuotaDependency, ServiceDependency
from keywarp.server.security.quotas import Quota
from keywarp.server.service import Service
from keywarp.server.streams.examiner import NO_RULES
from keywarp.server.streams.pipeline import Pipeline, ReceivedPayload
from keywarp.server.streams.stream import Stream
from keywarp.server.streams.subscribers import FrameResponse
from keywarp.server.task_scope import task_scope

log = logging.getLogger(__name__)
router = APIRouter()
_stream_id = TypeAdapter[str](StreamId)


@router.websocket("/v1/streams/{stream_id}/ws")
async def connect(websocket: WebSocket, stream_id: str, service: ServiceDependency, quota: QuotaDependency) -> None:
    """Feed a stream: see `keywarp.protocol.messages` for the protocol."""
    try:
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            raise BadMessageError(f"the WebSocket subprotocol must be {SUBPROTOCOL!r}")
        try:
            _stream_id.validate_python(stream_id)
        except ValidationError as error:
            raise BadMessageError(f"not a stream id: {faults.describe(error)}") from error
        service.refuse_if_draining()
    except ServerError as error:
        await websocket.send_denial_response(problem_response(error.problem, websocket.url.path))
        return
    await websocket.accept(SUBPROTOCOL)
    await WebSocketConnection(websocket, service, quota).run(stream_id)


class ConnectionState(StrEnum):
    """The state of a connection. Its value names what the client may send next."""

    NEW = "`hello`"
    STREAMING = "a frame or `end`"
    ENDING = "nothing after `end`"


class _DisconnectedError(Exception):
    """The client disconnected, so nothing more can be sent."""


class WebSocketConnection:
    """One accepted WebSocket."""

    def __init__(self, websocket: WebSocket, service: Service, quota: Quota) -> None:
        self._websocket = websocket
        self._service = service
        self._quota = quota
        self._state = ConnectionState.NEW
        self._draining = False
        self._received = 0  # binary messages
        self._window = self._announced = service.settings.credit  # binary messages since the start
        self._held = 0  # bytes of payloads that aren't decoded yet
        self._inbox: asyncio.Queue[ReceivedPayload | None] = asyncio.Queue()  # None marks the end

    async def run(self, stream_id: str) -> None:
        """Run the connection. At its end, a stream that it created is removed, and any other can be fed again."""
        try:
            done = await self._run(stream_id)
            # The stream is free by now: a client that receives this may use its id again at once.
            await self._send(done)
            await self._websocket.close(CloseCode.NORMAL)
            log.info("stream %s: done, %d frames, %d errors", stream_id, done.frames, done.errors)
        except (_DisconnectedError, WebSocketDisconnect):
            log.info("stream %s: the client disconnected", stream_id)
        except ServerError as error:
            log.info("stream %s: refused: %r", stream_id, error.problem.detail)
            await self._close_with(error)
        except Exception:
            log.exception("stream %s: internal error", stream_id)
            await self._close_with(InternalError("the server failed; its log has the details"))

    async def _run(self, stream_id: str) -> Done:
        hello = await self._receive_hello()
        rules = _rules(hello)
        stream = self._service.streams.get(stream_id)
        if stream and hello.resumed:
            self._service.refuse_if_draining()
            await stream.take_over(self._quota)
            stream = self._service.streams.get(stream_id)  # None if that connection had created it
        created = stream is None  # the connection removes a stream that it created
        if stream is None:
            stream = await self._service.create_watched(hello, stream_id, rules or Rules(), self._quota)
        else:
            self._service.refuse_if_draining()
            if not hello.resumed:
                _refuse_other_options(stream, hello, rules)
        try:
            async with stream.connected(self._quota):
                with self._service.in_flight():
                    return await self._stream(stream, hello)
        finally:
            if created:
                await self._service.streams.remove(stream, f"the connection of stream {stream_id!r} ended")

    async def _receive_hello(self) -> Hello:
        timeout = self._service.settings.hello_timeout
        try:
            async with asyncio.timeout(timeout):
                message = await self._receive()
        except TimeoutError:
            raise HelloTimeoutError(f"no `hello` within {timeout:g} s") from None
        if not isinstance(message, Hello):
            raise self._unexpected(message)
        if message.video is not None and message.codec not in get_args(Container):
            raise BadMessageError(
                f"`video` chooses among the videos of a container, but the codec `{message.codec}` isn't one: "
                "choose before you send it"
            )
        return message

    async def _stream(self, stream: Stream, hello: Hello) -> Done:
        self._state = ConnectionState.STREAMING
        settings = self._service.settings
        stream.changed.clear()
        await self._send(
            Ready(
                stream=stream.id,
                model=describe(stream.engine),
                interval=stream.schedule.interval,
                schedule=stream.schedule.schedule,
                max_interval=stream.schedule.max_interval,
                max_age=stream.schedule.max_age,
                overlap=stream.schedule.overlap,
                mode=stream.mode,
                credit=self._window,
                max_message_bytes=settings.max_message_bytes,
                options=_agreed(stream),
            )
        )
        chunks = hello.framing == "chunks"
        options = replace(self._service.video_options(stream), orientation=hello.orientation)
        decoder = open_decoder(hello.codec, options, chunks=chunks)
        pipeline = Pipeline(stream, decoder, self._quota)
        try:
            ends = stream.raise_when_closed(), stream.raise_when_taken_over(), self._stop_when_draining()
            async with task_scope(self._receive_all(stream), *ends, self._tell_changes(stream)) as tasks:
                tasks.create_task(pipeline.feed(self._payloads()))
                async for response in pipeline.responses():
                    await self._send_response(response, self._window + pipeline.consumed)
        finally:
            self._service.payload_memory.free(self._held)
            self._held = 0
            await pipeline.close()
        return pipeline.done

    # -- the stages ----------------------------------------------------------------------------------------------------

    async def _receive_all(self, stream: Stream) -> None:
        while True:
            message = await self._receive()
            if self._draining:
                continue
            match message:
                case (FrameHeader() as header, memoryview() as data) if self._state is ConnectionState.STREAMING:
                    self._received += 1
                    if self._received > self._announced:
                        raise CreditExceededError(
                            f"{self._received} messages sent, but the credit is {self._announced}"
                        )
                    received = time.monotonic()
                    await self._service.payload_memory.wait(len(data), self._held)
                    self._held += len(data)
                    self._inbox.put_nowait(ReceivedPayload(header, data, received))
                    stream.touch()
                case End() if self._state is ConnectionState.STREAMING:
                    self._state = ConnectionState.ENDING
                    self._inbox.put_nowait(None)
                case _:
                    raise self._unexpected(message)

    async def _payloads(self) -> AsyncIterator[ReceivedPayload]:
        while payload := await self._inbox.get():
            yield payload
            self._held -= len(payload.data)
            self._service.payload_memory.free(len(payload.data))
        if self._state is not ConnectionState.ENDING:
            # This isn't the end of the video: the frames that the decoder holds back would come before later ones.
            raise DrainingError("the server stops: connect again in a few seconds")

    async def _stop_when_draining(self) -> None:
        await self._service.draining.wait()
        self._draining = True
        if self._state is ConnectionState.STREAMING:
            self._inbox.put_nowait(None)

    async def _tell_changes(self, stream: Stream) -> None:
        """Send the options that others have changed, so that the client can begin the stream again as it is now."""
        while True:
            await stream.changed.wait()
            stream.changed.clear()
            await self._send(Credit(credit=self._announced, options=_agreed(stream)))

    async def _send_response(self, response: FrameResponse | None, credit: int) -> None:
        """Send a response, with the credit if it has grown. Without a response, send only the credit that has grown.

        A draining server gives no more credit, because it takes no more frames.
        """
        grown = credit if credit > self._announced and not self._draining else None
        self._announced = credit
        if response:
            await self._send(response.model_copy(update={"credit": grown}))
        elif grown:
            await self._send(Credit(credit=grown))

    # -- messages ------------------------------------------------------------------------------------------------------

    async def _receive(self) -> Hello | End | tuple[FrameHeader, memoryview]:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise _DisconnectedError
        if (data := message.get("bytes")) is not None:
            try:
                return unpack(data)
            except FramingError as error:
                raise BadMessageError(str(error)) from error
        try:
            return ClientMessage.validate_json(message["text"])
        except ValidationError as error:
            described = faults.describe(error, whole="message")
            raise BadMessageError(f"expected {self._state}, got an invalid text message: {described}") from error

    async def _send(self, message: BaseModel) -> None:
        await self._websocket.send_text(message.model_dump_json(exclude_none=True))

    async def _close_with(self, error: ServerError) -> None:
        if isinstance(error, CapacityError):
            self._service.metrics.count_refused(error.reason)
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # RuntimeError: already closed
            await self._send(Error(problem=error.problem, fatal=True))
            await self._websocket.close(error.close, error.close_reason)

    def _unexpected(self, message: Hello | End | tuple[FrameHeader, memoryview]) -> BadMessageError:
        got = "a frame" if isinstance(message, tuple) else f"`{message.type}`"
        return BadMessageError(f"expected {self._state}, got {got}")


def _rules(hello: Hello) -> Rules | None:
    """Return the zones, lines and rules of a `hello`, or None if it has none.

    Raises:
        BadMessageError: They are invalid.
    """
    if hello.watched_by is None:
        return None
    try:
        return Rules.model_validate(hello.watched_by)
    except ValidationError as error:
        raise BadMessageError(f"`watched_by` is invalid: {faults.describe(error)}") from error


def _agreed(stream: Stream) -> AgreedOptions:
    """Return the options and rules that a stream has."""
    options = stream.options.model_dump(include=set(CameraOptions.model_fields)) | {"model": None}
    if stream.rules != NO_RULES:
        options["watched_by"] = stream.rules.model_dump(mode="json", exclude_defaults=True)
    return AgreedOptions.model_validate(options)


def _refuse_other_options(stream: Stream, hello: Hello, rules: Rules | None) -> None:
    """Check that a `hello` agrees with the options and the rules of an existing stream.

    Raises:
        BadMessageError: The `hello` asks for another value of an option.
    """
    options = {
        "model": (hello.model, stream.engine.bundle.name),
        "mode": (hello.mode, stream.mode),
        "masks": (hello.masks, stream.masks),
        "resolution": (hello.resolution, stream.resolution),
        "reliability": (hello.reliability, stream.reliability),
        "upright": (hello.upright, stream.upright),
        "video": (hello.video, stream.video),
        "track": (hello.track, stream.track),
        "interval": (hello.interval, stream.schedule.interval),
        "schedule": (hello.schedule, stream.schedule.schedule),
        "max_interval": (hello.max_interval, stream.schedule.max_interval),
        "max_age": (hello.max_age, stream.schedule.max_age),
        "overlap": (hello.overlap, stream.schedule.overlap),
        "max_fps": (hello.max_fps, stream.options.max_fps),
    }
    for name, (requested, actual) in options.items():
        if requested not in (None, actual):
            raise BadMessageError(f"stream {stream.id!r} has {name} {actual}, not {str(requested)[:64]}")
    if hello.hidden is not None and hello.hidden != tuple(stream.hidden.regions):
        raise BadMessageError(
            f"stream {stream.id!r} has other hidden regions: change them with PATCH, or leave them out"
        )
    if rules is not None and rules != stream.rules:
        raise BadMessageError(f"stream {stream.id!r} has other rules: change them with PUT, or leave them out")
    if hello.sinks and set(hello.sinks) != set(stream.sinks):
        raise BadMessageError(f"stream {stream.id!r} has the sinks {', '.join(stream.sinks) or '(none)'}, not others")
