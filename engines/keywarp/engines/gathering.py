"""Run propagated frames of several streams together, if the device is busy anyway."""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition

import numpy as np

from keywarp.engines.backends.interface import Program, Tensor
from keywarp.engines.batching import of_frame

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A program for the propagated frames of several streams at once, see `fuse_frames`."""

    program: Program
    frames: int  # that it takes

    def run(self, inputs: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Run frames together.

        Args:
            inputs: What the graph for one frame takes, for each frame, at least one and at most `frames`. If they are
                fewer, the last one is computed several times.

        Returns:
            What the graph for one frame gives, for each frame, in arrays of the program; see `Program.run`.
        """
        padded = [inputs[min(number, len(inputs) - 1)] for number in range(self.frames)]
        found = self.program.run(
            {of_frame(number, name): tensor for number, frame in enumerate(padded) for name, tensor in frame.items()}
        )
        arrays = {name: np.asarray(tensor) for name, tensor in found.items()}  # nothing of them stays on the device
        return [{name: array[n : n + 1] for name, array in arrays.items()} for n in range(len(inputs))]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Programs of which one runs at a time, for one frame and for batches of growing size."""

    single: Program
    batches: tuple[Batch, ...]

    @property
    def most(self) -> int:
        """The number of frames that it takes at once."""
        return max((batch.frames for batch in self.batches), default=1)

    def run(self, inputs: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Run one frame, or several in the smallest batch that takes them; see `Batch.run`."""
        if len(inputs) == 1:
            return [self.single.run(inputs[0])]
        return next(batch for batch in self.batches if batch.frames >= len(inputs)).run(inputs)


@dataclass(slots=True, eq=False)
class _Frame:
    """A frame that waits for a place, runs, or is read."""

    inputs: Mapping[str, Tensor]
    alone: bool = False  # since the batch that it was part of failed
    ran: bool = False
    group: "_Group | None" = None  # whose results it has yet to read
    outputs: Mapping[str, Tensor] | None = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Group:
    """The frames of a run, of which some haven't read their results yet."""

    place: Place
    frames: list[_Frame] = field(default_factory=list)
    unread: int = 0


class Gatherer:
    """Runs frames that come from several threads, each on the thread of one of them.

    A frame that finds a free place runs at once. Frames that come while all places are taken wait, and the next free
    place takes as many of them as it can, in their order. So batches form only if the device has no time to spare, and
    no frame waits for others to come.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        """Start without frames.

        Args:
            places: The programs. As many runs as there are places are under way at the same time, so that the results
                of one are read while another computes.
        """
        self._changed = Condition()
        self._free = list(places)
        self._waiting: deque[_Frame] = deque()

    @contextmanager
    def run(self, inputs: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
        """Run a frame, perhaps beside others, and yield its results, which are overwritten once the block ends.

        Args:
            inputs: What the graph for one frame takes. Arrays mustn't be changed until the results are there.

        Raises:
            BackendError: If the device failed, or the frame's own inputs are wrong. Those of others don't matter: if a
                batch fails, each of its frames runs again alone.
        """
        frame = _Frame(inputs)
        self._run(frame)
        if frame.outputs is None and frame.error is None:
            frame.alone, frame.ran = True, False
            self._run(frame)
        try:
            if frame.error is not None:
                raise frame.error
            assert frame.outputs is not None
            yield frame.outputs
        finally:
            self._leave(frame)

    def _run(self, frame: _Frame) -> None:
        """Wait for a frame's turn, and run it, unless another thread does."""
        with self._changed:
            if frame.alone:
                self._waiting.appendleft(frame)
            else:
                self._waiting.append(frame)
            self._changed.wait_for(lambda: frame.ran or (self._free and self._waiting and self._waiting[0] is frame))
            if frame.ran:  # by another thread
                return
            group = _Group(self._free.pop())
            most = 1 if frame.alone else group.place.most
            while self._waiting and len(group.frames) < most and (not group.frames or not self._waiting[0].alone):
                group.frames.append(self._waiting.popleft())
            self._changed.notify_all()  # whoever is the first now may run, too
        outputs: Sequence[Mapping[str, Tensor]] = ()
        error: BaseException | None = None
        try:
            outputs = group.place.run([taken.inputs for taken in group.frames])
        except BaseException as failure:  # noqa: BLE001 - it belongs to the frame, if there is only one
            error = failure
            if len(group.frames) > 1:
                log.warning(
                    "a batch of %d frames failed, so each of them runs again alone: %s", len(group.frames), failure
                )
        with self._changed:
            if error is None:
                group.unread = len(group.frames)
                for taken, found in zip(group.frames, outputs, strict=True):
                    taken.group, taken.outputs = group, found
            else:
                self._free.append(group.place)
                frame.error = error if len(group.frames) == 1 else None
            for taken in group.frames:
                taken.ran = True
            self._changed.notify_all()

    def _leave(self, frame: _Frame) -> None:
        """Free a frame's place when all frames of its run have left."""
        with self._changed:
            if frame.group:
                frame.group.unread -= 1
                if not frame.group.unread:
                    self._free.append(frame.group.place)
                    self._changed.notify_all()
