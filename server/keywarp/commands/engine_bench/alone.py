"""A bundle by itself: key frames, propagated frames, and the speed-up over per-frame evaluation."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from keywarp.commands.engine_bench.footage import Frame
from keywarp.engines import Engine, FixedInterval, StreamSession


@dataclass(frozen=True, slots=True)
class Medians:
    """Medians over the rounds, in seconds."""

    key: float
    propagated: float
    keyed: float  # a frame of a run with key frames
    per_frame: float  # a frame of a run in which every frame is a key frame

    @property
    def speed_up(self) -> float:
        """How many times cheaper frames are with propagation."""
        return self.per_frame / self.keyed


def measure_alone(engine: Engine, frames: Sequence[Frame], rounds: int) -> Medians:
    """Time runs with one key frame and per-frame runs over the same frames in turns.

    Args:
        engine: The engine.
        frames: The frames; the first one becomes the key frame.
        rounds: The number of measurements, after a round that warms up.
    """
    figures: dict[str, list[float]] = {"key": [], "propagated": [], "keyed": [], "per_frame": []}
    for _ in range(rounds + 1):  # the first round warms up
        for name, every in (("keyed", len(frames)), ("per_frame", 1)):
            session = StreamSession(engine, FixedInterval(every))
            run_started = time.perf_counter()
            for index, frame in enumerate(frames):
                started = time.perf_counter()
                session.process(frame)
                if name == "keyed":
                    figures["propagated" if index else "key"].append(time.perf_counter() - started)
            figures[name].append((time.perf_counter() - run_started) / len(frames))
            session.close()
    warm_up = {"key": 1, "propagated": len(frames) - 1, "keyed": 1, "per_frame": 1}
    return Medians(**{name: statistics.median(times[warm_up[name] :]) for name, times in figures.items()})
