"""Everything takes turns on the same frames, so that all of it runs under the same conditions."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from keywarp.commands.engine_bench.footage import Window
from keywarp.commands.engine_bench.machine import resident_bytes
from keywarp.commands.other_work import OtherWork
from keywarp.commands.progress import Progress
from keywarp.engines import Backend, BackendName, Precision, open_backend
from keywarp.engines.engine import default_cache

SETTLE = 0.02  # seconds between two turns, in which the threads of the one before go to sleep

Times = Mapping[str, Sequence[float]]  # seconds, by what was timed
Turn = Callable[[Window], Times]


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that takes turns.

    Attributes:
        name: Its name, which no other has.
        group: What `--only` and `--without` call it.
        open: Compiles it.
    """

    name: str
    group: str
    open: Callable[[], Turn]


@dataclass(slots=True)
class Record:
    """What came of one contestant."""

    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory: int | None = None  # bytes that it takes


@dataclass(slots=True)
class Records:
    """What came of all."""

    rounds: int = 0  # complete ones
    interrupted: bool = False
    other_work: float | None = None  # cores that other programs took during the rounds, on average, if that is known
    by_name: dict[str, Record] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # why contestants couldn't be opened


def take_turns(
    contestants: Sequence[Contestant],
    windows: Sequence[Window],
    rounds: int,
    refusals: tuple[type[Exception], ...],
    progress: Progress,
) -> Records:
    """Open all contestants, and let them take turns. Ctrl-C ends it early, after which the times so far remain.

    Args:
        contestants: The contestants. Rounds begin at different ones of them.
        windows: The frames, a window a round.
        rounds: The number of rounds, after a turn of each that warms up.
        refusals: The errors that leave a contestant out, in opening or warming up.
        progress: Is told how far it is.

    Raises:
        KeyboardInterrupt: If it is interrupted before the first round.
    """
    records = Records()
    turns: dict[str, Turn] = {}
    for number, contestant in enumerate(contestants):
        progress(f"compiling {contestant.name}", number, len(contestants))
        before = resident_bytes()
        try:
            turn = contestant.open()
            turn(windows[0])
        except refusals as error:
            records.left_out[contestant.name] = str(error)
            continue
        after = resident_bytes()
        memory = None if before is None or after is None else max(after - before, 0)
        turns[contestant.name] = turn
        records.by_name[contestant.name] = Record(memory=memory)
    names = list(turns)
    others = OtherWork()
    try:
        for number in range(rounds):
            window = windows[number % len(windows)]
            first = number * len(names) // rounds  # so that a disturbance in each round hits others each time
            for place in range(len(names)):
                name = names[(first + place) % len(names)]
                progress(f"round {number + 1} of {rounds}: {name}", number * len(names) + place, rounds * len(names))
                time.sleep(SETTLE)
                for what, seconds in turns[name](window).items():
                    records.by_name[name].times[what].extend(seconds)
            records.rounds += 1
    except KeyboardInterrupt:
        records.interrupted = True
    records.other_work = others.cores()
    return records


def timed_frames(run: Callable[[NDArray[np.uint8]], object], count: int) -> Turn:
    """Return a turn that times the first frames of a window.

    Args:
        run: What to time, on a frame.
        count: The number of frames. Of several, the first one isn't counted: the caches are full of another's data.
    """

    def turn(window: Window) -> Times:
        seconds = []
        for frame in window[:count]:
            started = time.perf_counter()
            run(frame.image)
            seconds.append(time.perf_counter() - started)
        return {"frame": seconds[1:] or seconds}

    return turn


def open_runtime(backend: BackendName, precision: Precision, threads: int) -> Backend:
    """Open a runtime that keeps what it compiles where engines keep it. See `open_backend`."""
    return open_backend(backend, precision, threads, default_cache())
