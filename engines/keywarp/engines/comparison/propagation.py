"""Propagate results from key frames, and compare them with the per-frame results at each key age."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from keywarp.engines.adaptive import AdaptiveInterval
from keywarp.engines.bundle import Bundle
from keywarp.engines.change import Thumbnail, change_after_motion, change_without_motion
from keywarp.engines.comparison.agreement import Counts, Measure
from keywarp.engines.comparison.clips import Clip, ClipFrame, choose_stride, key_start
from keywarp.engines.comparison.features import Channels, Maps, moments, squared_error
from keywarp.engines.comparison.options import Options, Progress
from keywarp.engines.comparison.steadiness import count_with_itself
from keywarp.engines.comparison.tally import COPIED, ErrorGroup, Group, Pair, Tally
from keywarp.engines.comparison.truths import Truths
from keywarp.engines.engine import Engine, KeyState
from keywarp.engines.errors import InvalidFrameError
from keywarp.engines.result import FrameResult

CUT = AdaptiveInterval(threshold=1.0).cut  # change from one frame to the next above which it is a cut


@dataclass(slots=True, eq=False)
class _Start:
    """A key frame, and what was propagated from it. It is counted when its last age is reached."""

    number: int
    position: int  # in its clip
    frame: ClipFrame
    states: list[KeyState]  # by source
    features: Maps | None
    same: Counts
    itself: Counts  # the result against that of the frame moved by a pixel
    age: int = 0
    cut: bool = False
    counts: list[tuple[Group, Counts]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    errors: list[tuple[ErrorGroup, Channels]] = field(default_factory=list)


def compare_ages(
    bundle: Bundle,
    clips: Sequence[Clip],
    options: Options,
    measure: Measure,
    tally: Tally,
    truths: Truths | None,
    progress: Progress,
    checkpoint: Callable[[], None],
) -> None:
    """Run the network on every frame, propagate from key starts with each source, and count how far they agree.

    Args:
        bundle: The bundle.
        clips: The clips.
        options: What to compare.
        measure: The task's measure.
        tally: What is counted, from which an interrupted comparison goes on.
        truths: Keeps the per-frame results, if they are needed later.
        progress: Is told how far it is.
        checkpoint: Is called whenever `tally` is whole, so that it can be saved.

    Raises:
        EngineError: If an engine fails, or a clip is too short.
    """
    engines = [options.open(bundle, motion, keep_features=options.features) for motion in options.motions]
    reference = options.open_reference(bundle, keep_features=options.features)
    try:
        for number, clip in enumerate(clips):
            if not tally.clips[number].complete:
                _Pass(engines, reference, number, clip, options, measure, tally, truths).run(progress, checkpoint)
    finally:
        for engine in engines if reference is None else [*engines, reference]:
            engine.close()


class _Pass:
    """One pass over one clip."""

    def __init__(
        self,
        engines: Sequence[Engine],
        reference: Engine | None,
        number: int,
        clip: Clip,
        options: Options,
        measure: Measure,
        tally: Tally,
        truths: Truths | None,
    ) -> None:
        self._engines = engines
        self._reference = reference
        self._number = number
        self._clip = clip
        self._options = options
        self._measure = measure
        self._tally = tally
        self._truths = truths
        self._active: list[_Start] = []

    def run(self, progress: Progress, checkpoint: Callable[[], None]) -> None:
        """Go through the clip once."""
        clip, options, tally = self._clip, self._options, self._tally.clips[self._number]
        stride = choose_stride(options.stride, clip.count, options.ages, options.max_frames)
        number = tally.next
        resumed = start = key_start(number, stride)
        last: Thumbnail | None = None
        times: list[float] = []
        cuts: list[float] = []
        for position, frame in enumerate(clip.frames()):
            progress(clip.name, position, clip.count)
            times.append(frame.time)
            thumbnail = Thumbnail.of(frame.image)
            if last is None:
                tally.height, tally.width = frame.image.shape[:2]
            elif thumbnail.frame_shape != last.frame_shape:
                self._active.clear()  # nothing can be propagated to another size
            elif _is_cut(thumbnail, last):
                cuts.append(frame.time)
                for run in self._active:
                    run.cut = True
            last = thumbnail
            due = number if position == start else None
            if due is not None:
                number += 1
                start = key_start(number, stride)
            if position < resumed or (due is None and not self._active):
                continue
            self._evaluate(position, frame, due)
            if self._active[0].age == options.ages:
                self._commit(self._active.pop(0))
                checkpoint()
        if not tally.starts:
            raise InvalidFrameError(
                f"{clip.name} has {len(times)} frames to compare, but a key interval of {options.ages + 1} needs at "
                f"least {options.ages + 1} of one size: choose shorter intervals, or another range or video"
            )
        tally.decoded, tally.seconds, tally.cuts = len(times), times[-1] - times[0], cuts
        tally.complete = True
        checkpoint()

    def _evaluate(self, position: int, frame: ClipFrame, due: int | None) -> None:
        """Run the network on a frame, and propagate the results of all active key frames to it.

        Args:
            position: The frame's position in its clip.
            frame: The frame.
            due: The number of the key start that it is, or None if it isn't one.
        """
        judge = self._reference or self._engines[0]
        truth, state = judge.key(frame.image)
        if self._truths is not None:
            self._truths.add(self._number, position, truth.output)
        for run in self._active:
            run.age += 1
            self._propagate(run, frame, truth)
        if due is not None:
            keys = [(truth, state) if engine is judge else engine.key(frame.image) for engine in self._engines]
            states = [key_state for _, key_state in keys]
            same = self._measure.count(keys[0][0].output, truth.output)
            itself = count_with_itself(judge, self._measure, frame.image, truth.output)
            self._active.append(_Start(due, position, frame, states, truth.features, same, itself))

    def _propagate(self, run: _Start, frame: ClipFrame, truth: FrameResult) -> None:
        seconds = frame.time - run.frame.time
        true = truth.features
        if true is not None and run.features is not None:
            run.errors.append((ErrorGroup(COPIED, run.age, run.cut), squared_error(run.features, true)))
        for source, (engine, state) in enumerate(zip(self._engines, run.states, strict=True)):
            result = engine.propagate(frame.image, state, [frame.vectors])
            counts = self._measure.count(result.output, truth.output)
            group = Group(self._number, source, run.age, round(100 * seconds), run.cut)
            run.counts.append((group, counts))
            run.pairs.append(
                Pair(
                    self._number,
                    source,
                    run.frame.index,
                    frame.index,
                    run.age,
                    frame.time,
                    seconds,
                    self._measure.agreement(counts),
                    self._measure.mistakes(counts),
                    run.cut,
                    math.nan if result.reliability is None else result.reliability,
                    result.motion != engine.motion,
                )
            )
            warped = result.features
            if true is not None and warped is not None:
                run.errors.append((ErrorGroup(source, run.age, run.cut), squared_error(warped, true)))

    def _commit(self, run: _Start) -> None:
        """Count a key frame whose last age was reached."""
        tally, clip = self._tally, self._tally.clips[self._number]
        tally.add_same(self._number, run.same, run.itself)
        for group, counts in run.counts:
            tally.add_counts(group, counts)
        for pair in run.pairs:
            tally.pairs.append(pair)
        for errors, error in run.errors:
            tally.add_error(errors, error)
        if run.features is not None:
            tally.add_moments(moments(run.features))
        end = run.position + self._options.ages + 1
        clip.evaluated += end - max(run.position, clip.end)
        clip.starts, clip.next, clip.end = clip.starts + 1, run.number + 1, end


def _is_cut(current: Thumbnail, last: Thumbnail) -> bool:
    return change_without_motion(current, last) > CUT and change_after_motion(current, last) > CUT
