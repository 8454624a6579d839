"""The results of a stream that another client feeds, or that the server pulls."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Self

import httpx
from pydantic import ValidationError

from keywarp.client import rest
from keywarp.client.connecting import connection_errors, without_read_timeout
from keywarp.client.errors import ConnectError, ProtocolError
from keywarp.client.resources import AsyncClosable, Closable
from keywarp.client.results import ProcessedFrame
from keywarp.protocol import Dropped, Error, Gone, Missed, Result, WatchMessage


class WatchCounters:
    """The counts of a watched stream's responses, for the watches of both clients.

    Attributes:
        errors: Frames that the server could not process.
        dropped: Frames that were dropped.
        missed: Responses that were missed because they were read too slowly.
        over: The reason why the stream ended, or None until then.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.dropped = 0
        self.missed = 0
        self.over: str | None = None

    def _receive(self, line: str) -> ProcessedFrame | None:
        """Process one line from the server, and return its result, or None if it holds none."""
        try:
            message = WatchMessage.validate_json(line)
        except ValidationError as error:
            raise ProtocolError(f"the server sent a line that keywarp.v1 doesn't have: {line[:100]!r}") from error
        match message:
            case Result():
                return ProcessedFrame(message, None, None, time.monotonic())
            case Error():
                self.errors += 1
            case Dropped():
                self.dropped += 1
            case Missed():
                self.missed += message.count
            case Gone():
                self.over = message.reason
        return None


class Watch(WatchCounters, Closable, Iterator[ProcessedFrame]):
    """An iterator over the results of a stream, made by `Client.watch`. It ends when the stream ends."""

    def __init__(self, client: httpx.Client, server: str, stream_id: str) -> None:
        """Start to watch.

        Args:
            client: A client that only this watch uses, and closes.
            server: The server's address.
            stream_id: The stream's id.
        """
        super().__init__()
        self._opened = ExitStack()
        self._opened.callback(client.close)
        request = client.stream(*rest.watch(stream_id), timeout=without_read_timeout(client))
        try:
            with connection_errors(server):
                response = self._opened.enter_context(request)
                if not response.is_success:
                    response.read()
                    raise rest.refusal(response)
        except BaseException:
            self.close()
            raise
        self._lines = response.iter_lines()

    def __next__(self) -> ProcessedFrame:
        while self.over is None:
            try:
                line = next(self._lines, None)
            except httpx.HTTPError as error:
                raise _broken(error) from error
            if line is None:
                raise _broken(None)
            if result := self._receive(line):
                return result
        raise StopIteration

    def close(self) -> None:
        """End the watch."""
        self._opened.close()


class AsyncWatch(WatchCounters, AsyncClosable, AsyncIterator[ProcessedFrame]):
    """An asynchronous iterator over the results of a stream, made by `AsyncClient.watch`."""

    def __init__(self, client: httpx.AsyncClient, server: str, stream_id: str) -> None:
        """Prepare to watch. The first result, or `async with`, connects.

        Args:
            client: A client that only this watch uses, and closes.
            server: The server's address.
            stream_id: The stream's id.
        """
        super().__init__()
        self._client = client
        self._server = server
        self._stream_id = stream_id
        self._opened = AsyncExitStack()
        self._opened.push_async_callback(client.aclose)
        self._lines: AsyncIterator[str] | None = None

    async def __anext__(self) -> ProcessedFrame:
        lines = self._lines or await self._begin()
        while self.over is None:
            try:
                line = await anext(lines, None)
            except httpx.HTTPError as error:
                raise _broken(error) from error
            if line is None:
                raise _broken(None)
            if result := self._receive(line):
                return result
        raise StopAsyncIteration

    async def close(self) -> None:
        """End the watch."""
        await self._opened.aclose()

    async def __aenter__(self) -> Self:
        if self._lines is None:
            await self._begin()
        return self

    async def _begin(self) -> AsyncIterator[str]:
        request = self._client.stream(*rest.watch(self._stream_id), timeout=without_read_timeout(self._client))
        try:
            with connection_errors(self._server):
                response = await self._opened.enter_async_context(request)
                if not response.is_success:
                    await response.aread()
                    raise rest.refusal(response)
        except BaseException:
            await self.close()
            raise
        self._lines = response.aiter_lines()
        return self._lines


def _broken(error: httpx.HTTPError | None) -> ConnectError:
    return ConnectError(f"the connection to the server broke: {error or 'it was closed'}")
