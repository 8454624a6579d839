"""One WebSocket conversation of protocol `keywarp.v1`: a state machine before and behind a pipeline.

    receive -> inbox -> pipeline -> send

The inbox is bounded by the credit; whoever can't go on makes those before it wait, up to the client, who gets no more
credit. Receiving never waits for anything, so a client that vanishes is noticed at once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from enum import StrEnum

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError

from keywarp.protocol import (
    ClientMessage,
    CloseCode,
    Credit,
    Done,
    End,
    Error,
    FrameHeader,
    FramingError,
    Hello,
    Ready,
    unpack,
)
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
from keywarp.server.security.quotas import Quota
from keywarp.server.service import Service
from keywarp.server.streams.pipeline import Arrived, Pipeline, beside
from keywarp.server.streams.stream import Stream
from keywarp.server.streams.subscribers import Answer

log = logging.getLogger(__name__)


class State(StrEnum):
    """What the client may say now."""

    GREETING = "`hello`"
    STREAMING = "a frame or `end`"
    ENDING = "nothing after `end`"


class _VanishedError(Exception):
    """The client is gone: there is nobody to tell anything."""


class Conversation:
    """From an accepted connection to its close."""

    def __init__(self, websocket: WebSocket, service: Service, quota: Quota) -> None:
        self._websocket = websocket
        self._service = service
        self._quota = quota
        self._state = State.GREETING
        self._stopping = False  # the server is
        self._received = 0  # binary messages
        self._credit = self._announced = service.settings.credit  # binary messages since the start
        self._inbox: asyncio.Queue[Arrived | None] = asyncio.Queue()  # None: the end

    async def run(self, stream_id: str) -> None:
        """Hold the conversation. Every way out frees the stream, or leaves it as free as it was."""
        try:
            done = await self._converse(stream_id)
            # The stream is free by now: whoever hears this may use its id again at once.
            await self._say(done)
            await self._websocket.close(CloseCode.NORMAL)
            log.info("stream %s: done, %d frames, %d errors", stream_id, done.frames, done.errors)
        except (_VanishedError, WebSocketDisconnect):
            log.info("stream %s: the client vanished", stream_id)
        except ServerError as error:
            log.info("stream %s: refused: %r", stream_id, error.problem.detail)
            await self._refuse(error)
        except Exception:
            log.exception("stream %s: a fault of the server", stream_id)
            await self._refuse(InternalError("the server failed: its log says more"))

    async def _converse(self, stream_id: str) -> Done:
        hello = await self._greet()
        stream = self._service.streams.get(stream_id)
        ours = stream is None  # then the stream lives as long as the conversation
        if stream is None:
            stream = self._service.create_stream(hello, stream_id, self._quota)
        else:
            self._service.refuse_if_draining()
            _refuse_if_different(stream, hello)
        try:
            async with stream.connected():
                with self._service.conversation():
                    return await self._stream(stream, hello)
        finally:
            if ours:
                await self._service.streams.remove(stream, f"the connection of stream {stream_id!r} ended")

    async def _greet(self) -> Hello:
        timeout = self._service.settings.hello_timeout
        try:
            async with asyncio.timeout(timeout):
                message = await self._hear()
        except TimeoutError:
            raise HelloTimeoutError(f"no `hello` within {timeout:g} s") from None
        if not isinstance(message, Hello):
            raise self._unexpected(message)
        return message

    async def _stream(self, stream: Stream, hello: Hello) -> Done:
        self._state = State.STREAMING
        await self._say(
            Ready(
                stream=stream.id,
                model=describe(stream.engine),
                interval=stream.pacing.interval,
                schedule=stream.pacing.schedule,
                max_interval=stream.pacing.max_interval,
                mode=stream.mode,
                credit=self._credit,
                max_message_bytes=self._service.settings.max_message_bytes,
            )
        )
        service = self._service
        chunks = hello.framing == "chunks"
        decoder = open_decoder(hello.codec, service.settings.max_pixels, service.nvdec, chunks=chunks)
        pipeline = Pipeline(self._service, stream, decoder, self._quota)
        try:
            async with beside(self._receive(), stream.watch(), self._watch_server()) as tasks:
                tasks.create_task(pipeline.decode(self._arrivals(), self._grant))
                async for answer in pipeline.answers():
                    await self._pass_on(answer)
        finally:
            await pipeline.close()
        return pipeline.done

    # -- the stages ----------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            message = await self._hear()
            if self._stopping:
                continue
            match message:
                case (FrameHeader() as header, memoryview() as payload) if self._state is State.STREAMING:
                    self._received += 1
                    if self._received > self._announced:
                        raise CreditExceededError(
                            f"{self._received} messages sent, but the credit is {self._announced}"
                        )
                    self._inbox.put_nowait(Arrived(header, payload, time.monotonic()))
                case End() if self._state is State.STREAMING:
                    self._state = State.ENDING
                    self._inbox.put_nowait(None)
                case _:
                    raise self._unexpected(message)

    async def _arrivals(self) -> AsyncIterator[Arrived]:
        while arrived := await self._inbox.get():
            yield arrived
        if self._state is not State.ENDING:
            # Not as if the video were over: what its decoder holds back comes before what the client hasn't sent yet.
            raise DrainingError("the server stops: connect again in a few seconds")

    def _grant(self) -> None:
        self._credit += 1

    async def _pass_on(self, answer: Answer | None) -> None:
        news = self._news()
        if answer:
            await self._say(answer.model_copy(update={"credit": news}))
        elif news:
            await self._say(Credit(credit=news))

    async def _watch_server(self) -> None:
        await self._service.draining.wait()
        self._stopping = True
        if self._state is State.STREAMING:
            self._inbox.put_nowait(None)

    # -- messages ------------------------------------------------------------------------------------------------------

    async def _hear(self) -> Hello | End | tuple[FrameHeader, memoryview]:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise _VanishedError
        if (data := message.get("bytes")) is not None:
            try:
                return unpack(data)
            except FramingError as error:
                raise BadMessageError(str(error)) from error
        try:
            return ClientMessage.validate_json(message["text"])
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'message'}: {e['msg']}" for e in error.errors())
            raise BadMessageError(f"expected {self._state}, got a text message that isn't valid: {faults}") from error

    async def _say(self, message: BaseModel) -> None:
        await self._websocket.send_text(message.model_dump_json(exclude_none=True))

    async def _refuse(self, error: ServerError) -> None:
        if isinstance(error, CapacityError):
            self._service.metrics.count_rejected(error.reason)
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # RuntimeError: already closed
            await self._say(Error(problem=error.problem, fatal=True))
            await self._websocket.close(error.close, error.close_reason)

    def _news(self) -> int | None:
        """The credit, if it has grown since the client was last told."""
        if self._credit == self._announced:
            return None
        self._announced = self._credit
        return self._credit

    def _unexpected(self, message: Hello | End | tuple[FrameHeader, memoryview]) -> BadMessageError:
        came = "a frame" if isinstance(message, tuple) else f"`{message.type}`"
        return BadMessageError(f"expected {self._state}, got {came}")


def _refuse_if_different(stream: Stream, hello: Hello) -> None:
    """A stream that exists keeps its settings."""
    model = stream.engine.bundle.name
    if hello.model not in (None, model):
        raise BadMessageError(f"stream {stream.id!r} runs model {model!r}, not {hello.model[:64]!r}")
    if hello.mode not in (None, stream.mode):
        raise BadMessageError(f"stream {stream.id!r} has the mode `{stream.mode}`, not `{hello.mode}`")
    if hello.masks not in (None, stream.masks) or hello.resolution not in (None, stream.resolution):
        raise BadMessageError(
            f"stream {stream.id!r} has masks `{stream.masks}` at the resolution `{stream.resolution}`, not others"
        )
    if hello.sinks and set(hello.sinks) != set(stream.sinks):
        raise BadMessageError(f"stream {stream.id!r} has the sinks {', '.join(stream.sinks) or '(none)'}, not others")
    pacing = stream.pacing
    if hello.interval not in (None, pacing.interval):
        raise BadMessageError(f"stream {stream.id!r} has key interval {pacing.interval}, not {hello.interval}")
    if hello.schedule not in (None, pacing.schedule):
        raise BadMessageError(f"stream {stream.id!r} has the schedule `{pacing.schedule}`, not `{hello.schedule}`")
    if hello.max_interval not in (None, pacing.max_interval):
        raise BadMessageError(
            f"stream {stream.id!r} has the longest key interval {pacing.max_interval}, not {hello.max_interval}"
        )
