"""Deliver responses and events of streams to sinks. The operator names the sinks, and each stream chooses among them.

A sink never delays a stream. Responses that it can't accept now wait in a queue of limited size for each stream, and
are retried. When the queue is full, the oldest ones are missed, and counted.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from keywarp.protocol import Result
from keywarp.protocol.events import Event, Rules
from keywarp.server.errors import BadMessageError, SinkError, SinkRefusalError
from keywarp.server.streams.stream import Stream
from keywarp.server.streams.subscribers import M, StreamMessage, Subscribers, Subscription
from keywarp.server.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Sink(Protocol):
    """A destination for responses."""

    classes: frozenset[str]  # deliver only results and events that show one of these; empty: deliver everything
    takes_events: bool  # whether events may be delivered, too

    async def announce(self, stream: str, rules: Rules) -> None:
        """Prepare for the events of a stream. This must not wait for anything.

        Args:
            stream: The stream's id.
            rules: Its rules; without any, it is gone, or its events go elsewhere.
        """
        ...

    async def deliver(self, stream: str, responses: Sequence[StreamMessage]) -> None:
        """Deliver all messages, or none of them.

        Args:
            stream: The id of their stream.
            responses: The responses or events, in the stream's order.

        Raises:
            SinkRefusalError: If none was delivered and a retry would fail, too.
            SinkError: If none was delivered.
        """
        ...

    async def close(self) -> None:
        """Free all resources."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """The limits of queues and deliveries, and the waits between retries."""

    queue_size: int = 1024  # responses of one stream that wait for one sink
    batch_size: int = 64  # most responses in one delivery
    first_wait: float = 1.0  # seconds to wait after the first failure; each further wait is twice as long
    longest_wait: float = 60.0  # seconds
    grace_period: float = 10.0  # seconds for the remaining deliveries after the stream is closed
    withdraw_after: float = 5.0  # seconds until a sink forgets the rules of a stream that hasn't come again


DEFAULT_POLICY: Final = DeliveryPolicy()


class Sinks:
    """All sinks by name, and the tasks that deliver to them."""

    def __init__(self, sinks: Mapping[str, Sink], metrics: Metrics, policy: DeliveryPolicy = DEFAULT_POLICY) -> None:
        """Start without streams.

        Args:
            sinks: The sinks by name. `close` closes them.
            metrics: Counts deliveries, failures and missed responses.
            policy: The limits of queues and deliveries, and the waits between retries.
        """
        self._sinks = dict(sinks)
        self._gates: defaultdict[str, _Gate] = defaultdict(_Gate)
        self._metrics = metrics
        self._policy = policy
        self._tasks: set[asyncio.Task[None]] = set()
        self._announced: dict[tuple[str, str], Rules] = {}  # by stream and sink
        self._stopping = asyncio.Event()

    def check(self, names: Iterable[str], *, events: bool = False) -> None:
        """Refuse unknown names.

        Args:
            names: The names.
            events: Whether the sinks are to get events.

        Raises:
            BadMessageError: If there is no sink of one of these names, or it takes no events. The message lists the
                existing sinks.
        """
        for name in names:
            if name not in self._sinks:
                known = ", ".join(self._sinks) or "none: `serve --site` names them"
                raise BadMessageError(f"there is no sink {name[:64]!r}; there are: {known}")
            if events and not self._sinks[name].takes_events:
                raise BadMessageError(f"the sink {name!r} takes no events: name one that is a file, webhook or MQTT")

    def takes_events(self, name: str) -> bool:
        """Return whether there is a sink of this name that takes events."""
        return name in self._sinks and self._sinks[name].takes_events

    def subscribe(self, stream: Stream, names: Iterable[str]) -> None:
        """Deliver a stream's responses to sinks, from now on until the stream is closed."""
        for name in dict.fromkeys(names):
            self._start(self._deliver_all(stream, name, stream.subscribers, None))

    async def subscribe_events(self, stream: Stream) -> None:
        """Deliver a stream's events to the sinks that its rules name, from now on until it has other rules."""
        rules = stream.rules
        for name in dict.fromkeys(rules.events):
            self._announced[stream.id, name] = rules
            await self._sinks[name].announce(stream.id, rules)
            self._start(self._deliver_events(stream, name, stream.events, rules))

    def stop(self) -> None:
        """Take the streams that close from now on as those of a server that stops, and will have them again."""
        self._stopping.set()

    def _start(self, delivery: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(delivery)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def replace(self, sinks: Mapping[str, Sink | None]) -> None:
        """Use other sinks of some names from now on, or none. A delivery that has begun is finished first.

        Streams stay subscribed to the names, but to those that are gone.
        """
        for name, sink in sinks.items():
            async with self._gates[name].closed():
                old = self._sinks.pop(name, None)
                if old:
                    await old.close()
                if sink:
                    self._sinks[name] = sink

    async def close(self) -> None:
        """Deliver the remaining responses of closed streams within the grace period, and close all sinks."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._policy.grace_period + 1)
            for task in late:
                task.cancel()
        for sink in self._sinks.values():
            await sink.close()

    async def _deliver_all(self, stream: Stream, name: str, source: Subscribers[M], rules: Rules | None) -> None:
        """Deliver what a source publishes, until it is closed, or until the stream has other rules than these."""
        batch_size = self._policy.batch_size
        with source.subscribe(self._policy.queue_size) as subscription:
            if rules is not None:
                await self._deliver(stream.id, name, [], subscription)  # what was announced
            while True:
                missed, responses = await subscription.take()
                if missed:
                    self._metrics.count_sink(name, "missed", missed)
                    log.warning("stream %s, sink %s: missed %d responses", stream.id, name, missed)
                sink = self._sinks.get(name)
                if not responses or sink is None:
                    return  # the stream is closed, or the sink was removed
                chosen: list[StreamMessage] = [response for response in responses if _is_wanted(sink, response)]
                for start in range(0, len(chosen), batch_size):
                    await self._deliver(stream.id, name, chosen[start : start + batch_size], subscription)

    async def _deliver_events(self, stream: Stream, name: str, source: Subscribers[Event], rules: Rules) -> None:
        """Deliver the events of a stream. The sink forgets its rules in the end, unless it soon has others."""
        await self._deliver_all(stream, name, source, rules)
        if self._stopping.is_set():
            return
        with suppress(TimeoutError):  # a camera that changes may be started anew
            async with asyncio.timeout(self._policy.withdraw_after):
                await self._stopping.wait()
        if self._announced.get((stream.id, name)) is not rules:
            return
        del self._announced[stream.id, name]
        if name in self._sinks:
            await self._sinks[name].announce(stream.id, Rules())
            over: Subscription[Event] = Subscription(1)
            over.close()
            await self._deliver(stream.id, name, [], over)

    async def _deliver(
        self, stream: str, name: str, responses: Sequence[StreamMessage], subscription: Subscription[M]
    ) -> None:
        """Retry until the responses are delivered, or the stream has been closed for the grace period."""
        policy = self._policy
        wait = policy.first_wait
        while subscription.closed_at is None or time.monotonic() - subscription.closed_at < policy.grace_period:
            try:
                async with self._gates[name].passing():
                    if name not in self._sinks:
                        break
                    await self._sinks[name].deliver(stream, responses)
            except SinkRefusalError as error:
                self._metrics.count_sink(name, "failed")
                log.warning("stream %s, sink %s: %s; it refuses %d responses", stream, name, error, len(responses))
                if len(responses) == 1:
                    break
                half = len(responses) // 2  # perhaps it refuses just one of them, or the size of the batch
                await self._deliver(stream, name, responses[:half], subscription)
                await self._deliver(stream, name, responses[half:], subscription)
                return
            except SinkError as error:
                self._metrics.count_sink(name, "failed")
                log.warning("stream %s, sink %s: %s; next try in %.0f s", stream, name, error, wait)
            else:
                self._metrics.count_sink(name, "delivered", len(responses))
                return
            await subscription.pause(wait if subscription.closed_at is None else min(wait, policy.grace_period / 4))
            wait = min(2 * wait, policy.longest_wait)
        self._metrics.count_sink(name, "missed", len(responses))


class _Gate:
    """Lets deliveries to a sink pass, or holds them while the sink is replaced."""

    def __init__(self) -> None:
        self._inside = 0
        self._open = asyncio.Event()
        self._empty = asyncio.Event()
        self._open.set()
        self._empty.set()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Wait until the gate is open, and keep it from being closed meanwhile."""
        await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Close the gate, once nothing is inside."""
        self._open.clear()
        try:
            await self._empty.wait()
            yield
        finally:
            self._open.set()


def _is_wanted(sink: Sink, response: StreamMessage) -> bool:
    if not sink.classes:
        return True
    if isinstance(response, Event):
        return not sink.classes.isdisjoint(response.classes)
    if not isinstance(response, Result):
        return False
    objects = response.detections or (response.segmentation.regions if response.segmentation else ())
    return any(one.name in sink.classes for one in objects)
