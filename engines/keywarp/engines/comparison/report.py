"""The figures of a comparison."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.bundle import Bundle
from keywarp.engines.comparison.agreement import Counts, Measure
from keywarp.engines.comparison.clips import Clip
from keywarp.engines.comparison.features import relative_error
from keywarp.engines.comparison.options import Options
from keywarp.engines.comparison.tally import COPIED, REFERENCE, Cost, ErrorGroup, Group, Pair, Pairs, Tally

Number = TypeVar("Number", np.int64, np.float64)

WORST = 0.05  # share of the frames that are listed as the worst


@dataclass(frozen=True, slots=True)
class Worst:
    """A propagated result that agrees least with the per-frame result."""

    clip: int  # number
    video: str
    key: int  # the key frame's position in its video
    frame: int  # the frame's position in its video
    time: float  # seconds since the video's start
    age: int  # frames
    age_seconds: float
    agreement: float
    mistakes: int  # pixels or boxes that don't agree


@dataclass(frozen=True, slots=True)
class IntervalFigures:
    """A stream with a fixed key interval."""

    agreement: float  # over all frames, key frames included
    oldest: float  # agreement at the greatest key age
    ms: float  # mean cost of a frame
    speed_up: float  # over per-frame evaluation


@dataclass(frozen=True, slots=True)
class ScheduleFigures:
    """A stream with another schedule."""

    source: str
    schedule: str
    agreement: float  # over all frames, key frames included
    interval: float  # mean key interval, frames
    ms: float  # mean cost of a frame, with the schedule's decision
    speed_up: float


@dataclass(frozen=True, slots=True)
class SourceFigures:
    """One motion source."""

    mean: float  # of the agreement at all key ages from 1 on
    mean_without_cuts: float  # the same without results that were propagated over a cut
    by_age: dict[int, float]  # agreement by key age in frames
    by_seconds: dict[float, float]  # agreement by key age in seconds
    figures_by_age: dict[str, dict[int, float]]  # further figures of the task
    by_video: dict[str, float]  # mean of the agreement at all key ages
    feature_error: float | None  # of all ages, relative to copied features; None if it wasn't measured
    feature_error_by_age: dict[int, float]
    key_ms: float  # cost of a key frame
    ms: float  # cost of a propagated frame
    key_processor_ms: float  # processor time of all threads for a key frame
    processor_ms: float  # processor time of all threads for a propagated frame
    intervals: dict[int, IntervalFigures]  # by key interval, each from 2 frames on
    longest: int  # longest interval that keeps the chosen agreement; 1 if none does
    worst_mean: float  # mean agreement of the worst 5 % of results that weren't propagated over a cut
    worst: tuple[Worst, ...]  # these, the worst first
    replaced: float  # share of the frames on which another source had to be used
    reliability: float | None  # rank correlation of the results' reliability and agreement; None if there is none


@dataclass(frozen=True, slots=True)
class Recommended:
    """What costs least of all that keeps the chosen agreement."""

    source: str | None  # None if per-frame evaluation is cheapest, or nothing keeps the agreement
    schedule: str
    interval: float  # frames; 1 is per-frame evaluation
    agreement: float
    ms: float  # mean cost of a frame
    speed_up: float


@dataclass(frozen=True, slots=True)
class VideoFigures:
    """What was compared of one video."""

    video: str
    width: int
    height: int
    frames: int  # decoded
    evaluated: int  # on which the whole network ran
    key_starts: int  # key frames from which results were propagated
    fps: float
    cuts: tuple[float, ...]  # seconds since the video's start


@dataclass(frozen=True, slots=True)
class Comparison:
    """How well results that are propagated agree with those of the network on every frame."""

    model: str
    version: str
    task: str
    measure: str  # the name of the agreement
    backend: str
    device: str
    precision: str
    reference: str  # the precision of the per-frame results
    intervals: tuple[int, ...]  # that were asked for; the sources' figures have all up to the longest of them
    keep: float
    cuts: bool  # whether results that were propagated over a cut count
    confidence: float  # least confidence of the boxes that count
    videos: tuple[VideoFigures, ...]
    per_frame_ms: float
    self_agreement: (
        float  # of the network with itself if the picture moves by a pixel: about what can be reached at most
    )
    sources: dict[str, SourceFigures]
    schedules: tuple[ScheduleFigures, ...]
    recommended: Recommended

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def summarise(
    bundle: Bundle, clips: Sequence[Clip], options: Options, measure: Measure, tally: Tally, backend: Sequence[str]
) -> Comparison:
    """Compute all figures from what was counted.

    Args:
        bundle: The bundle.
        clips: The clips.
        options: What was compared.
        measure: The task's measure.
        tally: What was counted.
        backend: The names of backend, device and precision.
    """
    # All sources run the same network on a key frame, and some prepare their motion besides.
    reference = tally.costs.get(REFERENCE)
    per_frame = reference.key if reference else min(cost.key for cost in tally.costs.values())
    pairs = tally.pairs.table()
    sources = {
        motion: _source(
            number,
            clips,
            options,
            measure,
            tally,
            pairs[pairs[:, _column("source")] == number],
            per_frame,
            [features.channels for features in bundle.manifest.features],
        )
        for number, motion in enumerate(options.motions)
    }
    schedules = tuple(_schedules(options, measure, tally, per_frame))
    itself = _sum(tally.itself.values())
    return Comparison(
        model=bundle.name,
        version=bundle.manifest.version,
        task=bundle.manifest.task,
        measure=measure.name,
        backend=backend[0],
        device=backend[1],
        precision=backend[2],
        reference=options.reference or backend[2],
        intervals=options.intervals,
        keep=options.keep,
        cuts=options.cuts,
        confidence=options.confidence,
        videos=tuple(
            VideoFigures(
                video=clip.name,
                width=done.width,
                height=done.height,
                frames=done.decoded,
                evaluated=done.evaluated,
                key_starts=done.starts,
                fps=(done.decoded - 1) / done.seconds if done.seconds > 0 else 0.0,
                cuts=tuple(done.cuts),
            )
            for clip, done in zip(clips, tally.clips, strict=True)
        ),
        per_frame_ms=1000 * per_frame,
        self_agreement=_mean([] if itself is None else [measure.agreement(itself)]),
        sources=sources,
        schedules=schedules,
        recommended=_recommend(sources, schedules, options.keep, 1000 * per_frame),
    )


def _source(
    number: int,
    clips: Sequence[Clip],
    options: Options,
    measure: Measure,
    tally: Tally,
    pairs: NDArray[np.float64],
    per_frame: float,
    maps: Sequence[int],
) -> SourceFigures:
    ages = range(1, options.ages + 1)

    def total(wanted: Callable[[Group], bool], *, cuts: bool = options.cuts) -> Counts | None:
        return _sum(c for g, c in tally.counts.items() if g.source == number and (cuts or not g.cut) and wanted(g))

    def agreements(clip: int | None = None, *, cuts: bool = options.cuts) -> dict[int, float]:
        found = {a: total(lambda g, a=a: g.age == a and clip in (None, g.clip), cuts=cuts) for a in ages}  # type: ignore[misc]
        return {age: measure.agreement(counts) for age, counts in found.items() if counts is not None}

    by_age = agreements()
    by_counts = {age: total(lambda g, a=age: g.age == a) for age in ages}  # type: ignore[misc]
    figures: dict[str, dict[int, float]] = {}
    for age, counts in by_counts.items():
        if counts is not None:
            for name, value in measure.figures(counts).items():
                figures.setdefault(name, {})[age] = value
    cost = tally.costs[number]
    counted = pairs if options.cuts else pairs[pairs[:, _column("cut")] == 0]
    intervals = _intervals(options, measure, tally, by_counts, by_age, cost, per_frame)
    worst = _worst(clips, pairs[pairs[:, _column("cut")] == 0])
    errors = {age: _feature_error(tally, number, options, age, maps) for age in ages}
    return SourceFigures(
        mean=_mean(by_age.values()),
        mean_without_cuts=_mean(agreements(cuts=False).values()),
        by_age=by_age,
        by_seconds=_by_seconds(measure, tally, number, options),
        figures_by_age=figures,
        by_video={clip.name: _mean(agreements(n).values()) for n, clip in enumerate(clips)},
        feature_error=_feature_error(tally, number, options, None, maps),
        feature_error_by_age={age: error for age, error in errors.items() if error is not None},
        key_ms=1000 * cost.key,
        ms=1000 * cost.propagated,
        key_processor_ms=1000 * cost.key_processor,
        processor_ms=1000 * cost.propagated_processor,
        intervals=intervals,
        longest=_longest(intervals, options.keep),
        worst_mean=_mean(w.agreement for w in worst),
        worst=worst,
        replaced=float(counted[:, _column("replaced")].mean()) if len(counted) else 0.0,
        reliability=_correlation(counted),
    )


def _intervals(
    options: Options,
    measure: Measure,
    tally: Tally,
    by_counts: dict[int, Counts | None],
    by_age: dict[int, float],
    cost: Cost,
    per_frame: float,
) -> dict[int, IntervalFigures]:
    figures = {}
    counts = _sum(tally.same.values())
    assert counts is not None
    for interval in range(2, options.ages + 2):
        more = by_counts[interval - 1]
        if more is None:
            break
        counts = counts + more
        seconds = (cost.key + (interval - 1) * cost.propagated) / interval
        figures[interval] = IntervalFigures(
            agreement=measure.agreement(counts),
            oldest=by_age[interval - 1],
            ms=1000 * seconds,
            speed_up=per_frame / seconds,
        )
    return figures


def _longest(intervals: dict[int, IntervalFigures], keep: float) -> int:
    longest = 1
    for interval, figures in intervals.items():
        if figures.agreement < keep:
            break
        longest = interval
    return longest


def _schedules(options: Options, measure: Measure, tally: Tally, per_frame: float) -> Iterable[ScheduleFigures]:
    for source, motion in enumerate(options.motions):
        for name in options.schedules:
            sessions = [s for (n, schedule, _), s in tally.sessions.items() if (n, schedule) == (source, name)]
            counts = _sum(s.counts for s in sessions)
            assert counts is not None
            frames, keys = sum(s.frames for s in sessions), sum(s.keys for s in sessions)
            cost = tally.costs[source]
            overhead = sum(s.overhead * s.frames for s in sessions) / frames
            seconds = (keys * cost.key + (frames - keys) * cost.propagated) / frames + overhead
            yield ScheduleFigures(
                source=motion,
                schedule=name,
                agreement=measure.agreement(counts),
                interval=frames / keys,
                ms=1000 * seconds,
                speed_up=per_frame / seconds,
            )


def _recommend(
    sources: dict[str, SourceFigures], schedules: Sequence[ScheduleFigures], keep: float, per_frame_ms: float
) -> Recommended:
    choices = [Recommended(None, "fixed", 1, 1.0, per_frame_ms, 1.0)]
    for name, source in sources.items():
        for interval, fixed in source.intervals.items():
            if interval <= source.longest:
                choices.append(Recommended(name, "fixed", interval, fixed.agreement, fixed.ms, fixed.speed_up))
    choices += [
        Recommended(s.source, s.schedule, s.interval, s.agreement, s.ms, s.speed_up)
        for s in schedules
        if s.agreement >= keep
    ]
    return min(choices, key=lambda choice: choice.ms)


def _by_seconds(measure: Measure, tally: Tally, source: int, options: Options) -> dict[float, float]:
    """Return the agreement by key age in seconds, in steps of the slowest clip's time from one frame to the next."""
    steps = [clip.seconds / (clip.decoded - 1) for clip in tally.clips if clip.decoded > 1]
    step = max([*steps, 0.01])
    sums: dict[int, Counts] = {}
    for group, counts in tally.counts.items():
        if group.source == source and (options.cuts or not group.cut):
            number = round(group.hundredths / 100 / step)
            sums[number] = sums[number] + counts if number in sums else counts
    return {round(number * step, 3): measure.agreement(counts) for number, counts in sorted(sums.items()) if number}


def _feature_error(tally: Tally, source: int, options: Options, age: int | None, maps: Sequence[int]) -> float | None:
    def total(wanted: int) -> NDArray[np.float64] | None:
        def counts(group: ErrorGroup) -> bool:
            return group.source == wanted and age in (None, group.age) and (options.cuts or not group.cut)

        return _sum(error for group, error in tally.errors.items() if counts(group))

    warped, copied = total(source), total(COPIED)
    if warped is None or copied is None:
        return None
    return relative_error(warped, copied, tally.moments, tally.moment_frames, maps)


def _worst(clips: Sequence[Clip], pairs: NDArray[np.float64]) -> tuple[Worst, ...]:
    count = math.ceil(WORST * len(pairs))
    order = np.lexsort((-pairs[:, _column("mistakes")], pairs[:, _column("agreement")]))[:count]
    found = [Pairs.pair(pairs[row]) for row in order]
    return tuple(
        Worst(
            clip=pair.clip,
            video=clips[pair.clip].name,
            key=pair.key,
            frame=pair.frame,
            time=pair.time,
            age=pair.age,
            age_seconds=pair.seconds,
            agreement=pair.agreement,
            mistakes=pair.mistakes,
        )
        for pair in found
    )


def _correlation(pairs: NDArray[np.float64]) -> float | None:
    """Return Spearman's rank correlation of reliability and agreement."""
    reliability, agreement = pairs[:, _column("reliability")], pairs[:, _column("agreement")]
    known = ~np.isnan(reliability)
    if known.sum() < 2:
        return None
    ranks = [_ranks(values[known]) for values in (reliability, agreement)]
    if any(rank.std() == 0 for rank in ranks):
        return None
    return float(np.asarray(np.corrcoef(np.stack(ranks)))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each value's rank; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _column(name: str) -> int:
    return Pair._fields.index(name)


def _sum(arrays: Iterable[NDArray[Number]]) -> NDArray[Number] | None:
    """Return the sum of arrays, or None if there is none."""
    total: NDArray[Number] | None = None
    for array in arrays:
        total = array if total is None else total + array
    return total


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan
