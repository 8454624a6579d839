"""Measure what key frames and propagated frames cost with each motion source."""

import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import islice

from keywarp.engines.bundle import Bundle
from keywarp.engines.comparison.clips import Clip, ClipFrame
from keywarp.engines.comparison.options import Options, Progress
from keywarp.engines.comparison.tally import Cost
from keywarp.engines.engine import Engine

ROUNDS = 6  # key frames that are timed with each source, over all clips


def measure_costs(bundle: Bundle, clips: Sequence[Clip], options: Options, progress: Progress) -> dict[int, Cost]:
    """Time frames with each source, one key interval with each in turn, so that all run under the same conditions.

    A time is from the decoded frame to its result.

    Args:
        bundle: The bundle.
        clips: The clips. Each counts the same.
        options: What to compare.
        progress: Is told how far it is.

    Returns:
        The means over the clips of the medians over the frames, by source.

    Raises:
        EngineError: If an engine fails.
    """
    engines = [options.open(bundle, motion) for motion in options.motions]
    rounds = max(2, ROUNDS // len(clips))
    try:
        costs = [_measure_clip(engines, clip, options.ages, rounds, progress) for clip in clips]
    finally:
        for engine in engines:
            engine.close()
    return {
        source: Cost(
            statistics.mean(cost[source].key for cost in costs),
            statistics.mean(cost[source].propagated for cost in costs),
        )
        for source in range(len(engines))
    }


def _measure_clip(engines: Sequence[Engine], clip: Clip, ages: int, rounds: int, progress: Progress) -> list[Cost]:
    keys: list[list[float]] = [[] for _ in engines]
    propagated: list[list[float]] = [[] for _ in engines]
    for number, frames in enumerate(islice(_windows(clip, ages + 1), rounds)):
        for _ in range(1 if number else 2):  # the first time warms up
            progress("cost", number, rounds)
            for source, engine in enumerate(engines):
                if number == 0:
                    keys[source].clear()
                    propagated[source].clear()
                started = time.perf_counter()
                _, state = engine.key(frames[0].image)
                keys[source].append(time.perf_counter() - started)
                for frame in frames[1:]:
                    started = time.perf_counter()
                    engine.propagate(frame.image, state)
                    propagated[source].append(time.perf_counter() - started)
    return [Cost(statistics.median(k), statistics.median(p)) for k, p in zip(keys, propagated, strict=True)]


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
