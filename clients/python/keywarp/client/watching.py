"""Watching a stream that somebody else feeds, or that the server pulls."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Self

import httpx
from pydantic import ValidationError

from keywarp.client import calls
from keywarp.client.errors import ConnectError, ProtocolError
from keywarp.client.results import ProcessedFrame
from keywarp.protocol import Dropped, Error, Gone, Missed, Result, WatchMessage


class _Told:
    """What a watcher has been told so far.

    Attributes:
        errors: Frames that the server could not process.
        dropped: Frames that were left out.
        missed: Answers that this watcher was too slow for.
        over: Why the stream ended, once it has.
    """

    def __init__(self) -> None:
        self.errors = 0
        self.dropped = 0
        self.missed = 0
        self.over: str | None = None

    def take(self, line: str) -> ProcessedFrame | None:
        try:
            said = WatchMessage.validate_json(line)
        except ValidationError as error:
            raise ProtocolError(f"the server sent a line that isn't of a stream's results: {line[:100]!r}") from error
        match said:
            case Result():
                return ProcessedFrame(said, None, None, time.monotonic())
            case Error():
                self.errors += 1
            case Dropped():
                self.dropped += 1
            case Missed():
                self.missed += said.count
            case Gone():
                self.over = said.reason
        return None


class Watch(_Told, Iterator[ProcessedFrame]):
    """The results of a stream from now on, made by `Client.watch`. Iterate over it; it ends when the stream does."""

    def __init__(self, client: httpx.Client, server: str, stream_id: str) -> None:
        """Begin; the client is this watch's own."""
        super().__init__()
        self._server = server
        self._opened = ExitStack()
        self._opened.callback(client.close)
        try:
            response = self._opened.enter_context(client.stream(*calls.watch(stream_id), timeout=calls.endless(client)))
            if not response.is_success:
                response.read()
                calls.streams().read(response)  # raises
        except httpx.HTTPError as error:
            self.close()
            raise calls.unreachable(server, error) from error
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
            if result := self.take(line):
                return result
        raise StopIteration

    def close(self) -> None:
        """Look away."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncWatch(_Told, AsyncIterator[ProcessedFrame]):
    """The results of a stream from now on, made by `AsyncClient.watch`; the end of the stream ends it, too."""

    def __init__(self, client: httpx.AsyncClient, server: str, stream_id: str) -> None:
        """Begin at the first step; the client is this watch's own."""
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
            if result := self.take(line):
                return result
        raise StopAsyncIteration

    async def close(self) -> None:
        """Look away."""
        await self._opened.aclose()

    async def __aenter__(self) -> Self:
        if self._lines is None:
            await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _begin(self) -> AsyncIterator[str]:
        request = self._client.stream(*calls.watch(self._stream_id), timeout=calls.endless(self._client))
        try:
            response = await self._opened.enter_async_context(request)
            if not response.is_success:
                await response.aread()
                calls.streams().read(response)  # raises
        except httpx.HTTPError as error:
            await self.close()
            raise calls.unreachable(self._server, error) from error
        except BaseException:
            await self.close()
            raise
        self._lines = response.aiter_lines()
        return self._lines


def _broken(error: httpx.HTTPError | None) -> ConnectError:
    return ConnectError(f"the connection to the server broke: {error or 'it was closed'}")
