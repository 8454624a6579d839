"""Structured concurrency: a block of code, its tasks, and guards that can end both."""

from asyncio import CancelledError, Task, TaskGroup, current_task, gather
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class _TrackedTaskGroup(TaskGroup):
    """A task group that remembers its tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.created: list[Task[Any]] = []

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        task = super().create_task(coro, name=name, context=context)
        self.created.append(task)
        return task


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
        async with _TrackedTaskGroup() as tasks:
            running = [tasks.create_task(guard) for guard in guards]
            yield tasks
            for guard in running:
                guard.cancel()
            # A task that fails after the block has ended would leave this one marked as cancelled (before Python 3.13).
            await gather(*tasks.created, return_exceptions=True)
    except BaseExceptionGroup as group:
        if (task := current_task()) and task.cancelling():  # which `TaskGroup` forgets before Python 3.13
            raise CancelledError from group
        raise group.exceptions[0] from None
