"""Compute whole passages of a comparison once more: the frames after a key frame, with each motion source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.bundle import Bundle
from keywarp.engines.comparison.clips import Clip
from keywarp.engines.comparison.options import Options
from keywarp.engines.comparison.replay import worst_passages
from keywarp.engines.comparison.report import Comparison
from keywarp.engines.engine import Engine, KeyState
from keywarp.engines.result import Output


@dataclass(frozen=True, slots=True)
class Start:
    """The key frame of a passage."""

    clip: int  # number
    key: int  # position in its video


@dataclass(slots=True, eq=False)
class Passage:
    """The results at some key ages after one key frame."""

    video: str
    time: float  # of the key frame, seconds since the video's start
    images: dict[int, NDArray[np.uint8]] = field(default_factory=dict)  # by key age
    per_frame: dict[int, Output] = field(default_factory=dict)  # by key age
    propagated: dict[str, dict[int, Output]] = field(default_factory=dict)  # by source and key age, from age 1 on


def moving_passages(comparison: Comparison, count: int) -> list[Start]:
    """Return the passages in which most moves: those in which copied features fail most.

    Args:
        comparison: The comparison.
        count: The number of passages at most.
    """
    source = "none" if "none" in comparison.sources else next(iter(comparison.sources))
    return [Start(worst.clip, worst.key) for worst in worst_passages(comparison, source, count)]


def replay_passages(
    bundle: Bundle, clips: Sequence[Clip], options: Options, starts: Sequence[Start], ages: Sequence[int]
) -> list[Passage]:
    """Compute passages with all motion sources of a comparison.

    Args:
        bundle: The bundle.
        clips: The clips of the comparison.
        options: Its options.
        starts: The key frames.
        ages: The key ages to keep.

    Raises:
        EngineError: If an engine fails.
    """
    engines = {motion: options.open(bundle, motion) for motion in options.motions}
    try:
        return [
            passage
            for number, clip in enumerate(clips)
            for passage in _replay(engines, clip, {start.key for start in starts if start.clip == number}, ages)
        ]
    finally:
        for engine in engines.values():
            engine.close()


def _replay(engines: dict[str, Engine], clip: Clip, keys: set[int], ages: Sequence[int]) -> Iterator[Passage]:
    active: list[tuple[int, Passage, dict[str, KeyState]]] = []  # by the key frame's position
    if not keys:
        return
    for frame in clip.frames():
        if frame.index > max(keys) + max(ages):
            break
        results = {name: engine.key(frame.image) for name, engine in engines.items()} if frame.index in keys else {}
        if results:
            active.append(
                (frame.index, Passage(clip.name, frame.time), {n: state for n, (_, state) in results.items()})
            )
        for key, passage, states in active:
            age = frame.index - key
            kept = age in ages
            if kept:
                passage.images[age] = frame.image
                passage.per_frame[age] = next(iter(engines.values())).key(frame.image)[0].output
            for name, engine in engines.items():
                if 0 < age <= max(ages):  # sources that chain motion need all frames in between
                    output = engine.propagate(frame.image, states[name], [frame.vectors]).output
                    if kept:
                        passage.propagated.setdefault(name, {})[age] = output
        for key, passage, _ in active:
            if frame.index - key == max(ages):
                yield passage
        active = [one for one in active if frame.index - one[0] < max(ages)]
