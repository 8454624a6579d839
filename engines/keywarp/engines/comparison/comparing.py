"""Compare propagated results with those of the network on every frame."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

from keywarp.engines.bundle import Bundle
from keywarp.engines.comparison.agreement import open_measure
from keywarp.engines.comparison.clips import Clip
from keywarp.engines.comparison.costs import measure_costs
from keywarp.engines.comparison.options import Options, Progress, default_motions
from keywarp.engines.comparison.propagation import compare_ages
from keywarp.engines.comparison.report import Comparison, summarise
from keywarp.engines.comparison.scheduling import compare_schedules
from keywarp.engines.comparison.tally import Tally
from keywarp.engines.comparison.truths import Truths
from keywarp.engines.errors import InvalidFrameError

SAVE_EVERY = 10.0  # seconds between two saves of an unfinished comparison


def compare(
    bundle: Bundle,
    clips: Sequence[Clip],
    options: Options | None = None,
    *,
    progress: Progress | None = None,
    work: Path | None = None,
    save_every: float = SAVE_EVERY,
) -> Comparison:
    """Compare results that are propagated from key frames with the results of the network on every frame.

    No labels are needed, because the per-frame result counts as the truth. Key frames start about every
    `options.stride` frames; from each, results are propagated to all key ages.

    Args:
        bundle: The bundle.
        clips: The clips.
        options: What to compare, and how; None for the default motion sources and settings.
        progress: Is told how far the comparison is.
        work: A folder in which an interrupted comparison is kept, and from which the same one goes on, or None. It is
            created when there is something to keep.
        save_every: Seconds between two saves.

    Raises:
        EngineError: If an engine fails or can't be opened, or a clip is too short.
        OSError: If the folder can't be used.
        ValueError: If there is no clip, or no motion source of a name.
    """
    if not clips:
        raise ValueError("there is no clip to compare on")
    options = options or Options(motions=default_motions(bundle.manifest))
    report = progress or _silent
    measure = open_measure(bundle.manifest, options.confidence)
    engine = options.open(bundle, options.motions[0])
    backend = (engine.backend.name, engine.backend.device, engine.backend.precision)
    engine.close()
    saved = None if work is None else _Saved(work, options.fingerprint(bundle, clips), save_every)
    tally = (saved.load() if saved else None) or Tally(len(clips))
    truths = Truths(saved.truths if saved else None) if options.schedules else None

    def checkpoint(*, now: bool = False) -> None:
        if saved is not None and (now or saved.is_due):
            if truths is not None:
                truths.flush()
            saved.save(tally)

    try:
        compare_ages(bundle, clips, options, measure, tally, truths, report, checkpoint)
    except InvalidFrameError:  # the same comparison would always end here
        if work is not None:
            forget(bundle, clips, options, work)
        raise
    checkpoint(now=True)
    if truths is not None:
        compare_schedules(bundle, clips, options, measure, tally, truths, report, lambda: checkpoint(now=True))
    if not tally.costs:
        tally.costs = measure_costs(bundle, clips, options, report)
        checkpoint(now=True)
    return summarise(bundle, clips, options, measure, tally, backend)


def forget(bundle: Bundle, clips: Sequence[Clip], options: Options, work: Path) -> None:
    """Remove what `compare` kept in a folder of a comparison that isn't needed any more.

    Args:
        bundle: The bundle.
        clips: The clips.
        options: The comparison's options.
        work: The folder.
    """
    for suffix in (".npz", ".npz.part", ".results"):
        (work / f"{options.fingerprint(bundle, clips)}{suffix}").unlink(missing_ok=True)


class _Saved:
    """The files of an unfinished comparison."""

    def __init__(self, folder: Path, fingerprint: str, every: float) -> None:
        self._tally = folder / f"{fingerprint}.npz"
        self.truths = folder / f"{fingerprint}.results"
        self._every = every
        self._last = time.monotonic()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self._every

    def load(self) -> Tally | None:
        """Return what was counted before, or None if there is nothing that can be read."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, BadZipFile):
            return Tally.load(self._tally)
        return None

    def save(self, tally: Tally) -> None:
        self._tally.parent.mkdir(parents=True, exist_ok=True)
        tally.save(self._tally)
        self._last = time.monotonic()


def _silent(stage: str, done: int, total: int | None) -> None:
    """Show no progress."""
