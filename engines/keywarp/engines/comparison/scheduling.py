"""Run whole streams with a key schedule, and compare them with the per-frame results."""

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from keywarp.engines.bundle import Bundle
from keywarp.engines.comparison.agreement import Measure
from keywarp.engines.comparison.clips import Clip
from keywarp.engines.comparison.options import Options, Progress
from keywarp.engines.comparison.tally import SessionTally, Tally
from keywarp.engines.comparison.truths import Truths
from keywarp.engines.engine import Engine
from keywarp.engines.result import FrameKind
from keywarp.engines.schedule import KeySchedule
from keywarp.engines.session import StreamSession


def compare_schedules(
    bundle: Bundle,
    clips: Sequence[Clip],
    options: Options,
    measure: Measure,
    tally: Tally,
    truths: Truths,
    progress: Progress,
    checkpoint: Callable[[], None],
) -> None:
    """Process each clip as a stream, with each source and schedule. See `compare_ages` for the arguments.

    Raises:
        EngineError: If an engine fails.
    """
    for source, motion in enumerate(options.motions):
        missing = [
            (name, number)
            for name in options.schedules
            for number in range(len(clips))
            if (source, name, number) not in tally.sessions
        ]
        if not missing:
            continue
        engine = options.open(bundle, motion)
        try:
            for name, number in missing:
                stage = f"{clips[number].name}, {motion}, {name}"
                tally.sessions[source, name, number] = _run(
                    engine, options.schedules[name], number, clips[number], measure, truths, progress, stage
                )
                checkpoint()
        finally:
            engine.close()


def _run(
    engine: Engine,
    schedule: KeySchedule,
    number: int,
    clip: Clip,
    measure: Measure,
    truths: Truths,
    progress: Progress,
    stage: str,
) -> SessionTally:
    session = StreamSession(engine, schedule)
    counts = np.zeros((), np.int64)
    overheads: list[float] = []
    compared = keys = 0
    for position, frame in enumerate(clip.frames()):
        progress(stage, position, clip.count)
        started = time.perf_counter()
        result = session.process(frame.image, vectors=[frame.vectors], timestamp=frame.time)
        overheads.append(time.perf_counter() - started - result.inference - result.postprocess)
        keys += result.kind is FrameKind.KEY
        truth = truths.get(number, position, result.output)
        if truth is not None:
            counts = counts + measure.count(result.output, truth)
            compared += 1
    session.close()
    return SessionTally(counts, len(overheads), compared, keys, statistics.median(overheads))
