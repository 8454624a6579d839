"""Compare propagated results with those of the network on every frame.

Example:
    >>> from keywarp.engines import load_bundle
    >>> from keywarp.engines.comparison import Clip, ClipFrame, Options, compare
    >>> clip = Clip("street", lambda: (ClipFrame(image, i, i / 25) for i, image in enumerate(images)))
    >>> comparison = compare(load_bundle("models/street"), [clip], Options(motions=("none", "dis")))
    >>> comparison.sources["dis"].by_age[5], comparison.recommended.interval
"""

from keywarp.engines.comparison.agreement import BoxAgreement, LabelAgreement, Measure, open_measure
from keywarp.engines.comparison.clips import Clip, ClipFrame
from keywarp.engines.comparison.comparing import compare, forget
from keywarp.engines.comparison.objects import match_objects
from keywarp.engines.comparison.options import INTERVALS, MOTIONS, Options, Progress, default_motions
from keywarp.engines.comparison.passages import Passage, moving_passages, replay_passages
from keywarp.engines.comparison.replay import Replay, replay, worst_passages
from keywarp.engines.comparison.report import (
    Comparison,
    IntervalFigures,
    Recommended,
    ScheduleFigures,
    SourceFigures,
    VideoFigures,
    Worst,
)

__all__ = [
    "INTERVALS",
    "MOTIONS",
    "BoxAgreement",
    "Clip",
    "ClipFrame",
    "Comparison",
    "IntervalFigures",
    "LabelAgreement",
    "Measure",
    "Options",
    "Passage",
    "Progress",
    "Recommended",
    "Replay",
    "ScheduleFigures",
    "SourceFigures",
    "VideoFigures",
    "Worst",
    "compare",
    "default_motions",
    "forget",
    "match_objects",
    "moving_passages",
    "open_measure",
    "replay",
    "replay_passages",
    "worst_passages",
]
