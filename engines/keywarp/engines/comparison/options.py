"""What to compare, and how."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keywarp.engines.backends import BackendName, Precision
from keywarp.engines.bundle import Bundle
from keywarp.engines.comparison.clips import Clip
from keywarp.engines.engine import Engine
from keywarp.engines.manifest import Manifest
from keywarp.engines.motion import MotionSource
from keywarp.engines.schedule import KeySchedule

FORMAT = 2  # of the files of an interrupted comparison
# No motion, each part of the bundle's network alone and both, optical flow, and the best of it with the scale field.
MOTIONS = (
    "none",
    "none+scale",
    "flow",
    "network",
    "dis",
    "dis-chained",
    "dis-chained-repaired",
    "codec",
    "codec-repaired",
)
INTERVALS = (2, 3, 5, 10)


def default_motions(manifest: Manifest) -> tuple[str, ...]:
    """Return the motion sources to compare if none is chosen: `MOTIONS` and the bundle's own, those that it has."""
    sources = (MotionSource.parse(name) for name in (*MOTIONS, manifest.motion) if name in manifest.motions)
    return tuple(dict.fromkeys(str(source) for source in sources))


# Is told what is being done, the frames that are done of it, and all its frames, about, or None if that is unknown.
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to compare, and how."""

    motions: tuple[str, ...] = MOTIONS  # motion sources
    intervals: tuple[int, ...] = INTERVALS  # key intervals to report; the longest one bounds the key age
    schedules: Mapping[str, KeySchedule] = field(default_factory=dict)  # by name, to run beside fixed intervals
    keep: float = 0.95  # least agreement of the recommended interval, 0..1
    stride: int = 5  # mean distance of the key frames from which results are propagated, frames
    max_frames: int | None = None  # frames of a clip on which the network runs, about; None for all
    confidence: float = 0.0  # least confidence of the boxes that count, 0..1
    cuts: bool = True  # whether results that are propagated over a cut count
    features: bool = True  # whether to measure the error of features, too
    backend: BackendName = "auto"
    precision: Precision = "auto"
    reference: Precision | None = None  # precision of the per-frame results; None for the same one
    threads: int = 0
    fallback: bool = False
    cache: Path | None = None  # folder for compiled graphs

    def __post_init__(self) -> None:
        if not self.motions:
            raise ValueError("there is no motion source to compare: name at least one")
        for motion in self.motions:
            MotionSource.parse(motion)
        if not self.intervals or min(self.intervals) < 2:
            raise ValueError(f"key intervals to compare must be at least 2 frames, got {list(self.intervals)}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"the agreement to keep must be above 0 and at most 1, got {self.keep:g}")
        if self.stride < 1:
            raise ValueError(f"the distance of key frames must be at least 1 frame, got {self.stride}")
        if self.max_frames is not None and self.max_frames <= self.ages:
            raise ValueError(
                f"with intervals of up to {self.ages + 1} frames, at least {self.ages + 1} frames must be evaluated, "
                f"not {self.max_frames}"
            )

    @property
    def ages(self) -> int:
        """The greatest key age, frames."""
        return max(self.intervals) - 1

    def open_reference(self, bundle: Bundle, *, keep_features: bool = False) -> Engine | None:
        """Open the engine for the per-frame results, or return None if the first source's gives them.

        Args:
            bundle: The bundle to run.
            keep_features: Whether results carry features.

        Raises:
            EngineError: If the engine can't be opened.
        """
        if self.reference is None:
            return None
        return self._open(bundle, self.motions[0], self.reference, keep_features)

    def open(self, bundle: Bundle, motion: str, *, keep_features: bool = False) -> Engine:
        """Open an engine.

        Args:
            bundle: The bundle to run.
            motion: The motion source.
            keep_features: Whether results carry features.

        Raises:
            EngineError: If the engine can't be opened.
            ValueError: If there is no motion source of this name.
        """
        return self._open(bundle, motion, self.precision, keep_features)

    def _open(self, bundle: Bundle, motion: str, precision: Precision, keep_features: bool) -> Engine:
        return Engine(
            bundle,
            self.backend,
            precision,
            self.threads,
            cache=self.cache,
            motion=MotionSource.parse(motion),
            fallback=self.fallback,
            keep_features=keep_features,
        )

    def fingerprint(self, bundle: Bundle, clips: Sequence[Clip]) -> str:
        """Return a hash of everything that the results depend on, for finding an interrupted comparison."""
        parts = [
            FORMAT,
            bundle.digest,
            bundle.manifest.model_dump(mode="json"),
            [clip.identity for clip in clips],
            [*self.motions],
            self.ages,
            {name: repr(schedule) for name, schedule in self.schedules.items()},
            [self.stride, self.max_frames, self.confidence, self.features],
            [self.backend, self.precision, self.threads, self.reference],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
