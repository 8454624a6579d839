"""Compute single results of a comparison once more, for pictures of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.bundle import Bundle
from keywarp.engines.comparison.clips import Clip
from keywarp.engines.comparison.options import Options
from keywarp.engines.comparison.report import Comparison, Worst
from keywarp.engines.engine import Engine, KeyState
from keywarp.engines.result import Output


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """A propagated result beside the per-frame result."""

    source: str
    worst: Worst
    image: NDArray[np.uint8]  # the frame, RGB (H, W, 3)
    per_frame: Output
    propagated: Output


def worst_passages(comparison: Comparison, source: str, count: int) -> list[Worst]:
    """Return the worst result of each of the worst passages: frames near to each other would show the same.

    Args:
        comparison: The comparison.
        source: The motion source.
        count: The number of results at most.
    """
    chosen: list[Worst] = []
    ages = max(comparison.sources[source].by_age, default=1)
    for worst in comparison.sources[source].worst:
        if len(chosen) == count:
            break
        if all(other.clip != worst.clip or abs(other.frame - worst.frame) > 2 * ages for other in chosen):
            chosen.append(worst)
    return chosen


def replay(
    bundle: Bundle, clips: Sequence[Clip], options: Options, wanted: Sequence[tuple[str, Worst]]
) -> Iterator[Replay]:
    """Compute results once more.

    Args:
        bundle: The bundle.
        clips: The clips of the comparison.
        options: Its options.
        wanted: The motion sources and results.

    Yields:
        The results, in the order of their frames.

    Raises:
        EngineError: If an engine fails.
    """
    engines = {source: options.open(bundle, source) for source, _ in wanted}
    reference = options.open_reference(bundle)
    try:
        for number, clip in enumerate(clips):
            yield from _replay_clip(engines, reference, clip, [(s, w) for s, w in wanted if w.clip == number])
    finally:
        for engine in engines.values() if reference is None else [*engines.values(), reference]:
            engine.close()


def _replay_clip(
    engines: dict[str, Engine], reference: Engine | None, clip: Clip, wanted: list[tuple[str, Worst]]
) -> Iterator[Replay]:
    if not wanted:
        return
    last = max(worst.frame for _, worst in wanted)
    states: dict[tuple[str, int], KeyState] = {}
    for frame in clip.frames():
        if frame.index > last:
            break
        for source, worst in wanted:
            engine = engines[source]
            if frame.index == worst.key:
                states[source, worst.frame] = engine.key(frame.image)[1]
            elif worst.key < frame.index <= worst.frame:
                # Sources that chain motion need all frames in between.
                result = engine.propagate(frame.image, states[source, worst.frame], [frame.vectors])
                if frame.index == worst.frame:
                    truth, _ = (reference or engine).key(frame.image)
                    yield Replay(source, worst, frame.image, truth.output, result.output)
                    del states[source, worst.frame]
