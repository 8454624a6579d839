"""Structured concurrency: a block of code, its tasks, and watchers that can end both."""

from asyncio import TaskGroup
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def task_scope(*watchers: Coroutine[Any, Any, None]) -> AsyncIterator[TaskGroup]:
    """Run a block with a task group, while watchers run beside it.

    A watcher, task or block that raises cancels all others. The end of the block cancels the watchers, and waits for
    the other tasks.

    Raises:
        BaseException: The first error of any of them, by itself instead of in a group.
    """
    try:
        async with TaskGroup() as tasks:
            running = [tasks.create_task(watcher) for watcher in watchers]
            yield tasks
            for watcher in running:
                watcher.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
