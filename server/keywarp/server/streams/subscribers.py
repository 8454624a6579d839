"""Those who watch a stream beside whoever feeds it. None of them can hold it up."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from keywarp.engines import FrameResult
from keywarp.protocol import Dropped, Error, Result
from keywarp.server.decode.frames import Picture

Answer = Result | Error | Dropped

PATIENCE: Final = 256  # answers that a watcher may be behind, where nothing else is said


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A frame and what was found on it."""

    picture: Picture
    found: FrameResult


class Seat:
    """A watcher's place: answers wait here until they are taken."""

    def __init__(self, patience: int) -> None:
        self._waiting: deque[Answer] = deque(maxlen=patience)
        self._missed = 0
        self._some = asyncio.Event()
        self._end = asyncio.Event()
        self.ended: float | None = None  # since when nothing more comes; monotonic seconds

    def put(self, answer: Answer) -> None:
        """Add an answer, maybe in place of the oldest."""
        self._missed += len(self._waiting) == self._waiting.maxlen
        self._waiting.append(answer)
        self._some.set()

    async def take(self) -> tuple[int, list[Answer]]:
        """Wait for answers.

        Returns:
            How many were missed since the last time, and all that came after those; none: nothing more comes.
        """
        await self._some.wait()
        if self.ended is None:
            self._some.clear()
        taken, missed = [*self._waiting], self._missed
        self._waiting.clear()
        self._missed = 0
        return missed, taken

    def end(self) -> None:
        """Say that nothing more comes."""
        self.ended = time.monotonic()
        self._some.set()
        self._end.set()

    async def rest(self, seconds: float) -> None:
        """Wait so long; or, where more may come, at most until nothing more does."""
        if self.ended is not None:
            await asyncio.sleep(seconds)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._end.wait()


class Window:
    """A viewer's place: it holds the newest scene."""

    def __init__(self) -> None:
        self._scene: asyncio.Queue[Scene | None] = asyncio.Queue(1)

    def put(self, scene: Scene | None) -> None:
        """Show a scene, in place of one that nobody has looked at yet; None: it was the last."""
        if self._scene.full():
            self._scene.get_nowait()
        self._scene.put_nowait(scene)

    async def take(self) -> Scene | None:
        """Wait for a scene; None: there are no more."""
        return await self._scene.get()


class Audience:
    """All who watch one stream."""

    def __init__(self) -> None:
        self._seats: set[Seat] = set()
        self._windows: set[Window] = set()
        self._over = False

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

    def end(self) -> None:
        """Tell all that the stream is over, and whoever still comes."""
        self._over = True
        for seat in self._seats:
            seat.end()
        for window in self._windows:
            window.put(None)

    @contextmanager
    def seat(self, patience: int = PATIENCE) -> Iterator[Seat]:
        """Listen, from now on; so many answers wait."""
        seat = Seat(patience)
        self._seats.add(seat)
        if self._over:
            seat.end()
        try:
            yield seat
        finally:
            self._seats.discard(seat)

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Look, from now on."""
        window = Window()
        self._windows.add(window)
        if self._over:
            window.put(None)
        try:
            yield window
        finally:
            self._windows.discard(window)
