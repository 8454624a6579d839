"""Compare propagated results with those of the network on every frame.

Example:
    >>> from keywarp.engines import load_bundle
    >>> from keywarp.engines.comparison import Clip, ClipFrame, Options, compare
    >>> clip = Clip("street", lambda: (ClipFrame(image, i, i / 25) for i, image in enumerate(images)))
    >>> comparison = compare(load_bundle("models/street"), [clip], Options(motions=("none", "dis")))
    >>> comparison.sources["dis"].by_age[5], comparison.recommended.interval
"""

from keywarp.engines.comparison.agreement import BoxAgreement, LabelAgreement, Measure, match_boxes, open_measure
from keywarp.engines.comparison.clips import Clip, ClipFrame
from keywarp.engines.comparison.comparing import compare
from keywarp.engines.comparison.options import Options, Progress
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
    "BoxAgreement",
    "Clip",
    "ClipFrame",
    "Comparison",
    "IntervalFigures",
    "LabelAgreement",
    "Measure",
    "Options",
    "Progress",
    "Recommended",
    "Replay",
    "ScheduleFigures",
    "SourceFigures",
    "VideoFigures",
    "Worst",
    "compare",
    "match_boxes",
    "open_measure",
    "replay",
    "worst_passages",
]
