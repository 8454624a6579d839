"""Those who watch a stream beside whoever feeds it. None of them can hold it up."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from keywarp.engines import FrameResult
from keywarp.protocol import Dropped, Error, Result
from keywarp.server.pictures import Picture

Answer = Result | Error | Dropped

PATIENCE: Final = 256  # answers that a watcher may be behind


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A frame and what was found on it."""

    picture: Picture
    found: FrameResult


class Seat:
    """A watcher's place: answers wait here until they are taken."""

    def __init__(self) -> None:
        self._waiting: deque[Answer] = deque(maxlen=PATIENCE)
        self._missed = 0
        self._some = asyncio.Event()

    def put(self, answer: Answer) -> None:
        """Add an answer, maybe in place of the oldest."""
        self._missed += len(self._waiting) == PATIENCE
        self._waiting.append(answer)
        self._some.set()

    async def take(self) -> tuple[int, list[Answer]]:
        """Wait for answers.

        Returns:
            How many were missed since the last time, and all that came after those.
        """
        await self._some.wait()
        self._some.clear()
        taken, missed = [*self._waiting], self._missed
        self._waiting.clear()
        self._missed = 0
        return missed, taken


class Window:
    """A viewer's place: it holds the newest scene."""

    def __init__(self) -> None:
        self._scene: asyncio.Queue[Scene] = asyncio.Queue(1)

    def put(self, scene: Scene) -> None:
        """Show a scene, in place of one that nobody has looked at yet."""
        if self._scene.full():
            self._scene.get_nowait()
        self._scene.put_nowait(scene)

    async def take(self) -> Scene:
        """Wait for a scene."""
        return await self._scene.get()


class Audience:
    """All who watch one stream."""

    def __init__(self) -> None:
        self._seats: set[Seat] = set()
        self._windows: set[Window] = set()

    def __len__(self) -> int:
        return len(self._seats) + len(self._windows)

    @property
    def listens(self) -> bool:
        """Whether anybody takes answers."""
        return bool(self._seats)

    def tell(self, answer: Answer) -> None:
        """Give an answer to all who listen."""
        for seat in self._seats:
            seat.put(answer)

    def show(self, picture: Picture, found: FrameResult) -> None:
        """Show a frame to all who look."""
        for window in self._windows:
            window.put(Scene(picture, found))

    @contextmanager
    def seat(self) -> Iterator[Seat]:
        """Listen, from now on."""
        seat = Seat()
        self._seats.add(seat)
        try:
            yield seat
        finally:
            self._seats.discard(seat)

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Look, from now on."""
        window = Window()
        self._windows.add(window)
        try:
            yield window
        finally:
            self._windows.discard(window)
