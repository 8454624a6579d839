"""A common interface to the synchronous and the asynchronous client, so that a test covers both."""

import asyncio
from collections.abc import Callable
from typing import Any

from keywarp.client import AsyncClient, Client, ProcessedFrame


class Twin:
    """Calls the synchronous or the asynchronous client."""

    def __init__(self, kind: str) -> None:
        self._async = kind == "async"

    def call(self, address: str, method: str, *args: object, **options: object) -> Any:
        """Call one method of the client."""
        if not self._async:
            with Client(address, timeout=10) as client:
                return getattr(client, method)(*args, **options)

        async def call() -> Any:
            async with AsyncClient(address, timeout=10) as client:
                return await getattr(client, method)(*args, **options)

        return asyncio.run(call())

    def stream(
        self,
        address: str,
        source: Any,
        *,
        at_most: int | None = None,
        watch: Callable[[ProcessedFrame], None] = lambda _: None,
        **options: Any,
    ) -> list[ProcessedFrame]:
        """Stream a source, and leave the loop after `at_most` results without closing the stream."""
        if not self._async:
            results = []
            with Client(address, timeout=10) as client:
                for result in client.stream(source, **options):
                    watch(result)
                    results.append(result)
                    if len(results) == at_most:
                        break
            return results

        async def stream() -> list[ProcessedFrame]:
            results = []
            async with AsyncClient(address, timeout=10) as client:
                async for result in client.stream(source, **options):
                    watch(result)
                    results.append(result)
                    if len(results) == at_most:
                        break
            return results

        return asyncio.run(stream())

    def watch(self, address: str, stream_id: str, at_most: int | None = None) -> tuple[list[ProcessedFrame], Any]:
        """Watch a stream, and return its results and the watch."""
        results: list[ProcessedFrame] = []
        if not self._async:
            with Client(address, timeout=10) as client, client.watch(stream_id) as watch:
                for result in watch:
                    results.append(result)
                    if len(results) == at_most:
                        break
            return results, watch

        async def run() -> Any:
            async with AsyncClient(address, timeout=10) as client, client.watch(stream_id) as watch:
                async for result in watch:
                    results.append(result)
                    if len(results) == at_most:
                        break
            return watch

        return results, asyncio.run(run())
