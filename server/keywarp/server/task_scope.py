"""Structured concurrency: a block of code, its tasks, and guards that can end both."""

from asyncio import CancelledError, TaskGroup, current_task
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def task_scope(*guards: Coroutine[Any, Any, None]) -> AsyncIterator[TaskGroup]:
    """Run a block with a task group, while guards run in the background.

    A guard, task or block that raises cancels all others. The end of the block cancels the guards, and waits for
    the other tasks.

    Raises:
        CancelledError: The task that runs the block was cancelled, even if one of them failed at the same time.
        BaseException: The first error of any of them, by itself instead of in a group.
    """
    try:
        async with TaskGroup() as tasks:
            running = [tasks.create_task(guard) for guard in guards]
            yield tasks
            for guard in running:
                guard.cancel()
    except BaseExceptionGroup as group:
        if (task := current_task()) and task.cancelling():  # which `TaskGroup` forgets before Python 3.13
            raise CancelledError from group
        raise group.exceptions[0] from None
