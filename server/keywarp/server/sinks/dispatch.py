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
from keywarp.server.errors import BadMessageError, SinkError, SinkRefusalError
from keywarp.server.streams.stream import Stream
from keywarp.server.streams.subscribers import FrameResponse, Subscription
from keywarp.server.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

WAITING: Final = 1024  # answers of a stream that wait for a sink
SLICE: Final = 64  # answers at a time
FIRST_WAIT: Final = 1.0  # seconds, after the first failure
LONGEST_WAIT: Final = 60.0  # seconds; each wait is twice the one before
FAREWELL: Final = 10.0  # seconds to deliver the rest in, when a stream is gone


class Sink(Protocol):
    """Takes answers somewhere."""

    classes: frozenset[str]  # only results with one of these; empty: all answers

    async def deliver(self, stream: str, answers: list[FrameResponse]) -> None:
        """Take them all, or none.

        Raises:
            SinkRefusalError: None was taken, and trying again is no use.
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
                there_are = ", ".join(self._sinks) or "none: `serve --site` names them"
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
            _, late = await asyncio.wait(self._tasks, timeout=FAREWELL + 1)
            for task in late:
                task.cancel()
        for sink in self._sinks.values():
            await sink.close()

    async def _follow(self, stream: Stream, name: str) -> None:
        sink = self._sinks[name]
        with stream.subscribers.subscribe(WAITING) as seat:
            while True:
                missed, answers = await seat.take()
                if missed:
                    self._metrics.sink(name, "missed", missed)
                    log.warning("stream %s, sink %s: %d answers missed", stream.id, name, missed)
                if not answers:
                    return  # it is over
                chosen = [answer for answer in answers if _concerns(sink, answer)]
                for start in range(0, len(chosen), SLICE):
                    await self._deliver(stream.id, name, chosen[start : start + SLICE], seat)

    async def _deliver(self, stream: str, name: str, answers: list[FrameResponse], seat: Subscription) -> None:
        """Try until it is done, or the stream has been gone for long."""
        wait = FIRST_WAIT
        while seat.closed_at is None or time.monotonic() - seat.closed_at < FAREWELL:
            try:
                await self._sinks[name].deliver(stream, answers)
            except SinkRefusalError as error:
                self._metrics.sink(name, "failed")
                log.warning("stream %s, sink %s: %s: %d answers", stream, name, error, len(answers))
                if len(answers) == 1:
                    break
                half = len(answers) // 2  # maybe it is just one of them, or they are too many
                await self._deliver(stream, name, answers[:half], seat)
                await self._deliver(stream, name, answers[half:], seat)
                return
            except SinkError as error:
                self._metrics.sink(name, "failed")
                log.warning("stream %s, sink %s: %s; again in %.0f s", stream, name, error, wait)
            else:
                self._metrics.sink(name, "delivered", len(answers))
                return
            await seat.pause(wait if seat.closed_at is None else min(wait, FAREWELL / 4))
            wait = min(2 * wait, LONGEST_WAIT)
        self._metrics.sink(name, "missed", len(answers))


def _concerns(sink: Sink, answer: FrameResponse) -> bool:
    if not sink.classes:
        return True
    if not isinstance(answer, Result):
        return False
    found = answer.detections or (answer.segmentation.regions if answer.segmentation else ())
    return any(one.name in sink.classes for one in found)
