"""Structured concurrency: whoever fails or is cancelled, nothing keeps running."""

import asyncio

import pytest

from keywarp.server.task_scope import task_scope


async def fail(error: Exception) -> None:
    raise error


async def forever() -> None:
    await asyncio.Event().wait()


def test_the_end_of_the_block_cancels_the_watchers_and_waits_for_the_tasks() -> None:
    async def run() -> list[str]:
        ended: list[str] = []

        async def work() -> None:
            await asyncio.sleep(0)
            ended.append("task")

        async with task_scope(forever()) as tasks:
            tasks.create_task(work())
            ended.append("block")
        return ended

    assert asyncio.run(run()) == ["block", "task"]


@pytest.mark.parametrize("failing", ["watcher", "task", "block"])
def test_an_error_is_raised_by_itself_and_ends_everything(failing: str) -> None:
    async def run() -> None:
        watcher = fail(ValueError("watcher")) if failing == "watcher" else forever()
        async with task_scope(watcher) as tasks:
            tasks.create_task(fail(ValueError("task")) if failing == "task" else forever())
            await (fail(ValueError("block")) if failing == "block" else forever())

    with pytest.raises(ValueError, match=failing):
        asyncio.run(run())


def test_an_error_does_not_swallow_a_cancellation_from_outside() -> None:
    """As where the server stops just when a pull fails, which is about to be tried again."""

    async def run() -> None:
        ending = asyncio.Event()

        async def slow_to_end() -> None:
            try:
                await forever()
            finally:
                ending.set()
                for _ in range(3):
                    await asyncio.sleep(0)

        async def retry() -> None:
            while True:
                try:
                    async with task_scope(slow_to_end()):
                        await asyncio.sleep(0)
                        raise ValueError("failed")
                except ValueError:
                    await forever()

        task = asyncio.create_task(retry())
        await ending.wait()
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()

    asyncio.run(run())


@pytest.mark.parametrize("failing", ["guard", "task"])
def test_an_error_at_the_very_end_of_the_block_is_no_cancellation(failing: str) -> None:
    """As where a pull is paused just when its source ends."""

    async def fail_when(over: asyncio.Event) -> None:
        await over.wait()
        raise ValueError(failing)

    async def end_with_an_error() -> None:
        over = asyncio.Event()
        async with task_scope(fail_when(over) if failing == "guard" else forever()) as tasks:
            tasks.create_task(fail_when(over) if failing == "task" else asyncio.sleep(0))
            await asyncio.sleep(0)
            over.set()
            await asyncio.sleep(0)  # it has failed, and its task group doesn't know yet

    async def run() -> int:
        with pytest.raises(ValueError, match=failing):
            await end_with_an_error()
        task = asyncio.current_task()
        assert task
        return task.cancelling()

    assert asyncio.run(run()) == 0
