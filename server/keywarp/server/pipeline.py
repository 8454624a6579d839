"""From payloads to answers: decode, device, answer, one after the other, but each on another frame at a time.

    arrivals -> decode -> device -> outbox -> answers

While a frame is on the device, the next is being decoded and the one before encoded. The outbox is bounded, so whoever
doesn't take answers makes those before it wait.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from keywarp.protocol import Done, Error, FrameHeader, Result
from keywarp.server.errors import FrameRefusedError, ServerError
from keywarp.server.pictures import Damage, Decoder, Picture
from keywarp.server.service import Service
from keywarp.server.stream import Pending, Stream


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """One payload of a client."""

    header: FrameHeader
    payload: memoryview
    at: float  # monotonic seconds


class _Token(Enum):
    """What goes through the pipeline besides content."""

    CONSUMED = auto()  # a payload was decoded entirely
    END = auto()


def _nothing() -> None:
    pass


class Pipeline:
    """What one connection's payloads go through. Run `decode` in a task, and take the `answers` beside it."""

    def __init__(self, service: Service, stream: Stream, decoder: Decoder) -> None:
        self._service = service
        self._stream = stream
        self._decoder = decoder
        self._outbox: asyncio.Queue[Pending | Error | ServerError | _Token] = asyncio.Queue(1)
        self._frames = self._key_frames = self._errors = 0

    @property
    def done(self) -> Done:
        """The count of the answers that were taken."""
        return Done(frames=self._frames, key_frames=self._key_frames, errors=self._errors)

    async def decode(self, arrivals: AsyncIterator[Arrived], consumed: Callable[[], None] = _nothing) -> None:
        """Decode all that arrives and queue its frames for the device.

        Args:
            arrivals: Ends where the client says so. If it raises `ServerError`, `answers` does so in its turn.
            consumed: Called after each payload.
        """
        try:
            async for arrived in arrivals:
                waited = time.monotonic() - arrived.at
                await self._submit(self._decoder.decode(arrived.header, arrived.payload), waited)
                consumed()
                await self._outbox.put(_Token.CONSUMED)
            await self._submit(self._decoder.finish(), 0.0)
        except ServerError as error:  # told when it is its turn, after the results of what came before
            await self._outbox.put(error)
        else:
            await self._outbox.put(_Token.END)

    async def answers(self) -> AsyncIterator[Result | Error | None]:
        """One for each frame, in order; None where a payload was consumed.

        Raises:
            ServerError: Nothing more can come.
        """
        while (item := await self._outbox.get()) is not _Token.END:
            match item:
                case Pending():
                    yield await self._answer(item)
                case Error():
                    self._errors += 1
                    yield item
                case ServerError():
                    raise item
                case _Token.CONSUMED:
                    yield None

    async def close(self) -> None:
        """Free the decoder."""
        await asyncio.get_running_loop().run_in_executor(self._service.pool, self._decoder.close)

    async def _submit(self, items: Iterator[Picture | Damage], waited: float) -> None:
        while item := await self._service.step(items):
            match item:
                case Picture():
                    await self._outbox.put(await self._stream.submit(item, waited))
                case Damage():
                    index = self._stream.skip(item.error)
                    await self._outbox.put(Error(problem=item.error.problem, fatal=False, frame=index, id=item.id))
                case _:
                    assert_never(item)

    async def _answer(self, pending: Pending) -> Result | Error:
        try:
            result = await self._stream.result(pending)
        except FrameRefusedError as error:
            self._errors += 1
            return Error(problem=error.problem, fatal=False, frame=pending.index, id=pending.picture.id)
        self._frames += 1
        self._key_frames += result.kind == "key"
        return result
