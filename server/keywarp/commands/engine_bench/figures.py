"""What the times say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keywarp.commands.engine_bench.footage import LENGTH
from keywarp.commands.engine_bench.operations import Operations
from keywarp.commands.engine_bench.turns import Record

INTERVALS = (5, 10, 20)
REFERENCE = "onnxruntime fp32"  # what speed-ups are against


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds of something that was timed several times."""

    median: float
    p10: float
    p90: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread | None":
        """Return the spread of times in seconds, or None if there are none."""
        if not seconds:
            return None
        low, middle, high = (1000 * float(value) for value in np.percentile(seconds, (10, 50, 90)))
        return cls(middle, low, high, len(seconds))


@dataclass(frozen=True, slots=True)
class FrameRow:
    """Something that runs on every frame, or one part by itself."""

    name: str
    kind: str  # per frame, nano or part
    precision: str
    ms: Spread
    fps: float
    speed_up: float | None  # against the network on every frame in ONNX Runtime in fp32
    peak_share: float | None  # of the device's measured peak in this precision
    memory: int | None  # bytes


@dataclass(frozen=True, slots=True)
class IntervalFigures:
    """What a frame costs at a key interval."""

    ms: float
    p10: float | None  # of whole windows, if they were measured
    p90: float | None
    measured: bool  # in whole windows; otherwise computed from the medians of key and propagated frames
    fps: float
    speed_up: float | None  # as in `FrameRow`
    over_own_key: float  # against every frame a key frame in the same engine
    predicted: float  # that by Eq. 7, with the ratio of Eq. 6 (flow to features)
    reached: float  # share of it
    predicted_with_head: float  # that by Eq. 7, with the ratio of Eq. 5 (head and warp counted)
    reached_with_head: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a propagated frame goes, medians in milliseconds."""

    flow: float  # of the flow network by itself; 0 if none runs
    warp: float  # of the warp by itself
    head: float  # of the head by itself
    host: float  # after the networks
    rest: float  # what is left: the preparation of the frame, motion on the host, what joins the graphs
    at_peak: float | None  # what the operations of flow, warp and head would take at the device's peak


@dataclass(frozen=True, slots=True)
class KeywarpRow:
    """One way of propagating, in one precision."""

    name: str
    motion: str  # the flow network's name, or the motion source
    precision: str
    backend: str
    key: Spread
    propagated: Spread
    host: Spread  # the part of either after the networks
    intervals: dict[int, IntervalFigures]
    key_peak_share: float | None  # of the device's measured peak, with the operations of features and head
    profile: Profile | None  # None unless the parts were measured
    operations: Operations
    memory: int | None  # bytes


def summarise_frames(
    name: str,
    kind: str,
    precision: str,
    record: Record,
    reference: float | None,
    operations: int | None,
    peaks: Mapping[str, float],
) -> FrameRow | None:
    """Return the figures of something that runs on every frame, or None if it had no turn.

    Args:
        name: Its name.
        kind: What it is.
        precision: Its precision.
        record: Its times.
        reference: The milliseconds that speed-ups are against, if they are known.
        operations: Its operations, if they are known.
        peaks: The device's measured operations a second, by precision.
    """
    ms = Spread.of(record.times["frame"])
    if ms is None:
        return None
    return FrameRow(
        name=name,
        kind=kind,
        precision=precision,
        ms=ms,
        fps=1000 / ms.median,
        speed_up=reference / ms.median if reference and kind != "part" else None,
        peak_share=_share(operations, ms.median, peaks.get(precision)),
        memory=record.memory,
    )


def summarise_keywarp(
    name: str,
    motion: str,
    precision: str,
    backend: str,
    record: Record,
    reference: float | None,
    operations: Operations,
    peaks: Mapping[str, float],
    parts: Mapping[str, float] | None = None,
) -> KeywarpRow | None:
    """Return the figures of one way of propagating, or None if it had no turn.

    Args:
        name: Its name.
        motion: Its flow network or motion source.
        precision: Its precision.
        backend: Its runtime.
        record: Its times.
        reference: See `summarise_frames`.
        operations: Its operations.
        peaks: See `summarise_frames`.
        parts: The milliseconds of its graphs by themselves, if they are known: `warp`, `head`, and `flow` if it runs.
    """
    key, propagated, host = (Spread.of(record.times[what]) for what in ("key", "propagated", "host"))
    window = Spread.of(record.times["window"])
    if key is None or propagated is None or host is None or window is None:
        return None
    intervals: dict[int, IntervalFigures] = {}
    for length in INTERVALS:
        measured = length == LENGTH
        ms = window.median if measured else (key.median + (length - 1) * propagated.median) / length
        over, plain, whole = key.median / ms, operations.predict(length), operations.predict_with_head(length)
        intervals[length] = IntervalFigures(
            ms=ms,
            p10=window.p10 if measured else None,
            p90=window.p90 if measured else None,
            measured=measured,
            fps=1000 / ms,
            speed_up=reference / ms if reference else None,
            over_own_key=over,
            predicted=plain,
            reached=over / plain,
            predicted_with_head=whole,
            reached_with_head=over / whole,
        )
    return KeywarpRow(
        name=name,
        motion=motion,
        precision=precision,
        backend=backend,
        key=key,
        propagated=propagated,
        host=host,
        intervals=intervals,
        key_peak_share=_share(operations.whole, key.median, peaks.get(precision)),
        profile=_profile(propagated.median, host.median, operations, peaks.get(precision), parts or {}),
        operations=operations,
        memory=record.memory,
    )


def speed_ups(rows: Sequence[KeywarpRow]) -> dict[str, dict[str, float]]:
    """Return the speed-up of each motion in its fastest precision, by key interval."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        for length, figures in row.intervals.items():
            if figures.speed_up is not None:
                best = found.setdefault(row.motion, {})
                best[str(length)] = max(figures.speed_up, best.get(str(length), 0.0))
    return found


def _profile(
    propagated: float, host: float, operations: Operations, peak: float | None, parts: Mapping[str, float]
) -> Profile | None:
    if not {"warp", "head", *(["flow"] if operations.flow else [])} <= set(parts):
        return None
    flow = parts["flow"] if operations.flow else 0.0
    counted = operations.flow + operations.warp + operations.head
    return Profile(
        flow=flow,
        warp=parts["warp"],
        head=parts["head"],
        host=host,
        rest=propagated - flow - parts["warp"] - parts["head"] - host,
        at_peak=1000 * counted / peak if peak else None,
    )


def _share(operations: int | None, milliseconds: float, peak: float | None) -> float | None:
    return operations / (milliseconds / 1000) / peak if operations and peak else None
