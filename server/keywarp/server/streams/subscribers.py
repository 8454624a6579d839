"""Subscribers of a stream: they receive its responses or its frames, and never delay the producer."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Generic, TypeVar

from keywarp.engines import FrameResult
from keywarp.protocol import Dropped, Error, Result
from keywarp.protocol.events import Event
from keywarp.server.decode.frames import DecodedFrame

# The server's one message about a frame.
FrameResponse = Result | Error | Dropped
# What sinks receive.
StreamMessage = FrameResponse | Event
# A frame with its result, as previews show it.
ResultFrame = tuple[DecodedFrame, FrameResult]

M = TypeVar("M", bound=StreamMessage)

BACKLOG: Final = 256  # responses that may wait for a subscriber, by default


class Subscription(Generic[M]):
    """A bounded queue of one subscriber's responses. When it is full, the oldest ones are lost and counted."""

    def __init__(self, backlog: int) -> None:
        self._queue: deque[M] = deque(maxlen=backlog)
        self._missed = 0
        self._ready = asyncio.Event()
        self._closed = asyncio.Event()
        self.closed_at: float | None = None  # monotonic seconds at which the stream closed

    def put(self, response: M) -> None:
        """Queue a response, in place of the oldest one if the queue is full."""
        self._missed += len(self._queue) == self._queue.maxlen
        self._queue.append(response)
        self._ready.set()

    async def take(self) -> tuple[int, list[M]]:
        """Wait for responses.

        Returns:
            The number of responses that were lost since the last call, and the queued responses: 0 and an empty list
            once the stream has closed and everything was taken.
        """
        await self._ready.wait()
        if self.closed_at is None:
            self._ready.clear()
        responses, missed = [*self._queue], self._missed
        self._queue.clear()
        self._missed = 0
        return missed, responses

    def close(self) -> None:
        """Mark the end of the responses."""
        self.closed_at = time.monotonic()
        self._ready.set()
        self._closed.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, but wake up early when the stream closes."""
        if self.closed_at is not None:
            await asyncio.sleep(seconds)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closed.wait()


class Preview:
    """Holds the newest frame with its result for one viewer."""

    def __init__(self) -> None:
        self._newest: asyncio.Queue[ResultFrame | None] = asyncio.Queue(1)

    def put(self, frame: ResultFrame | None) -> None:
        """Offer a frame, which replaces one that wasn't taken yet. None marks the end."""
        if self._newest.full():
            self._newest.get_nowait()
        self._newest.put_nowait(frame)

    async def take(self) -> ResultFrame | None:
        """Wait for the next frame, or for None at the end."""
        return await self._newest.get()

    def take_nowait(self) -> ResultFrame | None:
        """Return the next frame if there is one already."""
        return None if self._newest.empty() else self._newest.get_nowait()


class Subscribers(Generic[M]):
    """All subscribers of one stream."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription[M]] = set()
        self._previews: set[Preview] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._subscriptions) + len(self._previews)

    @property
    def want_responses(self) -> bool:
        """Whether there are subscribers to responses."""
        return bool(self._subscriptions)

    def publish(self, response: M) -> None:
        """Queue a response for every subscriber."""
        for subscription in self._subscriptions:
            subscription.put(response)

    def publish_frame(self, frame: DecodedFrame, result: FrameResult) -> None:
        """Show a frame and its result in every preview."""
        for preview in self._previews:
            preview.put((frame, result))

    def close(self) -> None:
        """Tell all subscribers that the stream has closed, including later ones."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
        for preview in self._previews:
            preview.put(None)

    @contextmanager
    def subscribe(self, backlog: int = BACKLOG) -> Iterator[Subscription[M]]:
        """Receive responses from now on, of which up to `backlog` may wait."""
        subscription: Subscription[M] = Subscription(backlog)
        self._subscriptions.add(subscription)
        if self._closed:
            subscription.close()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    @contextmanager
    def preview(self) -> Iterator[Preview]:
        """Receive frames from now on."""
        preview = Preview()
        self._previews.add(preview)
        if self._closed:
            preview.put(None)
        try:
            yield preview
        finally:
            self._previews.discard(preview)
