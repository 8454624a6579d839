"""What frames and graphs cost."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from keywarp.engines import Backend, Engine
from keywarp.engines.parity import fix_shapes
from keywarp.quantization.capture import Feed
from keywarp.quantization.footage import Passage

ROUNDS = 9  # of which the first one warms up


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """What frames cost, milliseconds, medians."""

    key: float
    propagated: float

    def at(self, interval: int) -> float:
        """Return the mean cost of a frame at a key interval."""
        return (self.key + (interval - 1) * self.propagated) / interval


def time_frames(engines: Mapping[str, Engine], passages: Sequence[Passage]) -> dict[str, FrameTimes]:
    """Time frames with several engines, one passage with each in turn, so that all run under the same conditions.

    Args:
        engines: The engines, by name.
        passages: The frames, all of one size.

    Raises:
        EngineError: If an engine fails.
    """
    keys: dict[str, list[float]] = {name: [] for name in engines}
    others: dict[str, list[float]] = {name: [] for name in engines}
    names = list(engines)
    for number in range(ROUNDS):
        passage = passages[number % len(passages)]
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            engine = engines[name]
            started = time.perf_counter()
            _, state = engine.key(passage.frames[0].image)
            ended = time.perf_counter()
            keys[name].append(ended - started)
            for frame in passage.frames[1:]:
                started = time.perf_counter()
                engine.propagate(frame.image, state, [frame.vectors])
                others[name].append(time.perf_counter() - started)
    propagated = len(passages[0].frames) - 1
    return {
        name: FrameTimes(_median(keys[name][1:]), _median(others[name][propagated:] or keys[name][1:]))
        for name in names
    }


def time_graphs(backend: Backend, models: Mapping[str, onnx.ModelProto], feed: Feed) -> dict[str, float]:
    """Time graphs with the same inputs in turn.

    The fastest of several runs counts, since other programs on the machine disturb it least: which graph is faster must
    not depend on them.

    Args:
        backend: The backend that compiles them.
        models: The graphs, by name.
        feed: The inputs.

    Returns:
        The milliseconds, by name.

    Raises:
        EngineError: If the backend refuses a graph.
    """
    shapes = {name: value.shape for name, value in feed.items()}
    inputs = {name: np.ascontiguousarray(value) for name, value in feed.items()}
    programs = {name: backend.compile(fix_shapes(model, shapes)) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            started = time.perf_counter()
            program.run(inputs)
            times[name].append(time.perf_counter() - started)
    return {name: 1000 * min(measured[1:]) for name, measured in times.items()}


def _median(seconds: Sequence[float]) -> float:
    return 1000 * statistics.median(seconds)
