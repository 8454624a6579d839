"""Where results go besides to those who ask for them: files, webhooks, MQTT. The operator names them, streams choose.

A sink never holds a stream up. What it can't take now waits, so many answers of each stream, and is tried again; what
is too much is missed, and counted.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from keywarp.protocol import Result
from keywarp.server.audience import Answer, Seat
from keywarp.server.errors import BadMessageError, SinkError
from keywarp.server.metrics import Metrics
from keywarp.server.stream import Stream

log = logging.getLogger(__name__)

WAITING: Final = 1024  # answers of a stream that wait for a sink
FIRST_WAIT: Final = 1.0  # seconds, after the first failure
LONGEST_WAIT: Final = 60.0  # seconds; each wait is twice the one before
FAREWELL: Final = 10.0  # seconds to deliver the rest in, when a stream is gone


class Sink(Protocol):
    """Takes answers somewhere."""

    classes: frozenset[str]  # only results with one of these; empty: all answers

    async def deliver(self, stream: str, answers: list[Answer]) -> None:
        """Take them all, or none.

        Raises:
            SinkError: None was taken.
        """
        ...

    async def close(self) -> None:
        """Free everything."""
        ...


class Sinks:
    """All sinks by name, and who follows which stream."""

    def __init__(self, sinks: Mapping[str, Sink], metrics: Metrics) -> None:
        self._sinks = sinks
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, names: Iterable[str]) -> None:
        """Refuse unknown names.

        Raises:
            BadMessageError: There is one; says which are known.
        """
        for name in names:
            if name not in self._sinks:
                there_are = ", ".join(self._sinks) or "none: `serve --streams` names them"
                raise BadMessageError(f"there is no sink {name[:64]!r}; there are: {there_are}")

    def follow(self, stream: Stream, names: Iterable[str]) -> None:
        """Take a stream's answers to sinks, from now on until it is gone."""
        for name in dict.fromkeys(names):
            task = asyncio.create_task(self._follow(stream, name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Deliver what there still is of streams that are gone, as far as it goes in a few seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        for sink in self._sinks.values():
            await sink.close()

    async def _follow(self, stream: Stream, name: str) -> None:
        sink = self._sinks[name]
        with stream.audience.seat(WAITING) as seat:
            while True:
                missed, answers = await seat.take()
                if missed:
                    self._metrics.sink(name, "missed", missed)
                    log.warning("stream %s, sink %s: %d answers missed", stream.id, name, missed)
                if not answers:
                    return  # it is over
                if chosen := [answer for answer in answers if _concerns(sink, answer)]:
                    delivered = await self._deliver(stream.id, name, chosen, seat)
                    self._metrics.sink(name, "delivered" if delivered else "missed", len(chosen))

    async def _deliver(self, stream: str, name: str, answers: list[Answer], seat: Seat) -> bool:
        """Try until it is done; whether it was, before the stream had been gone for long."""
        wait = FIRST_WAIT
        while True:
            try:
                await self._sinks[name].deliver(stream, answers)
            except SinkError as error:
                self._metrics.sink(name, "failed")
                log.warning("stream %s, sink %s: %s; again in %.0f s", stream, name, error, wait)
            else:
                return True
            ended = await seat.rest(wait)
            if ended is not None and time.monotonic() - ended > FAREWELL:
                return False
            wait = min(2 * wait, LONGEST_WAIT if ended is None else FAREWELL / 4)


def _concerns(sink: Sink, answer: Answer) -> bool:
    if not sink.classes:
        return True
    if not isinstance(answer, Result):
        return False
    found = answer.detections or (answer.segmentation.regions if answer.segmentation else ())
    return any(one.name in sink.classes for one in found)
