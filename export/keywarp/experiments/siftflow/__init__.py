"""SIFT-Flow, the motion source of the paper's baselines SFF-fast and SFF-slow (Table 3)."""

import numpy as np

from keywarp.choices import PaperMotion, SIFTFlowName
from keywarp.engines import MotionName
from keywarp.experiments.siftflow.flow import SIFTFlow, SIFTFlowOptions

__all__ = ["SIFTFlow", "SIFTFlowOptions", "engine_motion", "open_siftflow"]


def engine_motion(name: PaperMotion) -> MotionName | SIFTFlow:
    """Return a motion source in the form that `Engine` takes."""
    return name if name == "network" or name == "none" else open_siftflow(name)


def open_siftflow(name: SIFTFlowName) -> SIFTFlow:
    """Return SIFT-Flow with the settings of SFF-fast or SFF-slow, compiled and ready to be timed."""
    source = SIFTFlow(SIFTFlow.FAST if name == "sift-fast" else SIFTFlow.SLOW)
    tiny = np.zeros((32, 32, 3), np.uint8)
    source.estimate(tiny, tiny)  # the first call compiles, which takes seconds
    return source
