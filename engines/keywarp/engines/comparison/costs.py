"""Measure what key frames and propagated frames cost with each motion source."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from itertools import islice

from keywarp.engines.bundle import Bundle
from keywarp.engines.comparison.clips import Clip, ClipFrame
from keywarp.engines.comparison.options import Options, Progress
from keywarp.engines.comparison.tally import REFERENCE, Cost
from keywarp.engines.engine import Engine

ROUNDS = 6  # key frames that are timed with each source, over all clips


def measure_costs(bundle: Bundle, clips: Sequence[Clip], options: Options, progress: Progress) -> dict[int, Cost]:
    """Time frames with each source, one key interval with each in turn, so that all run under the same conditions.

    A time is from the decoded frame to its result. The processor time of all threads is measured beside it, since other
    programs on the machine disturb it less.

    Args:
        bundle: The bundle.
        clips: The clips. Each counts the same.
        options: What to compare.
        progress: Is told how far it is.

    Returns:
        The means over the clips of the medians over the frames, by source; `REFERENCE` if another precision gives the
        per-frame results.

    Raises:
        EngineError: If an engine fails.
    """
    engines = [options.open(bundle, motion) for motion in options.motions]
    numbers = list(range(len(engines)))
    if reference := options.open_reference(bundle):
        engines.append(reference)
        numbers.append(REFERENCE)
    rounds = max(2, ROUNDS // len(clips))
    try:
        costs = [_measure_clip(engines, clip, options.ages, rounds, progress) for clip in clips]
    finally:
        for engine in engines:
            engine.close()
    return {
        source: Cost(*(statistics.mean(figures) for figures in zip(*map(astuple, by_clip), strict=True)))
        for source, by_clip in zip(numbers, zip(*costs, strict=True), strict=True)
    }


class _Times:
    """The times of one kind of frames with one source."""

    def __init__(self) -> None:
        self._wall: list[float] = []
        self._processor: list[float] = []

    def clear(self) -> None:
        self._wall.clear()
        self._processor.clear()

    @contextmanager
    def measured(self) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self._wall.append(time.perf_counter() - wall)
        self._processor.append(time.process_time() - processor)

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self._wall), statistics.median(self._processor)


def _measure_clip(engines: Sequence[Engine], clip: Clip, ages: int, rounds: int, progress: Progress) -> list[Cost]:
    keys, propagated = [_Times() for _ in engines], [_Times() for _ in engines]
    for number, frames in enumerate(islice(_windows(clip, ages + 1), rounds)):
        for _ in range(1 if number else 2):  # the first time warms up
            progress("cost", number, rounds)
            for place in range(len(engines)):
                source = (place + number) % len(engines)  # so that none always runs after the pause for decoding
                engine = engines[source]
                if number == 0:
                    keys[source].clear()
                    propagated[source].clear()
                with keys[source].measured():
                    _, state = engine.key(frames[0].image)
                for frame in frames[1:]:
                    with propagated[source].measured():
                        engine.propagate(frame.image, state, [frame.vectors])
    costs = []
    for key, other in zip(keys, propagated, strict=True):
        (wall, processor), (other_wall, other_processor) = key.medians, other.medians
        costs.append(Cost(wall, other_wall, processor, other_processor))
    return costs


def _windows(clip: Clip, length: int) -> Iterator[list[ClipFrame]]:
    """Yield consecutive frames of one size, `length` of them each time."""
    window: list[ClipFrame] = []
    for frame in clip.frames():
        if window and window[0].image.shape != frame.image.shape:
            window.clear()
        window.append(frame)
        if len(window) == length:
            yield window
            window = []
