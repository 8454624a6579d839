"""Where the motion between a frame and its key frame comes from."""

from keywarp.engines.motion.cells import stay_inside, to_cells, to_pixels
from keywarp.engines.motion.codec import Area, CodecTracker
from keywarp.engines.motion.dis import DIS
from keywarp.engines.motion.interface import OpticalFlow
from keywarp.engines.motion.names import FlowName, MotionName, MotionSource
from keywarp.engines.motion.repair import CheckedFlow, FlowCheck
from keywarp.engines.motion.tracking import ChainedTracker, DirectTracker, MotionTracker
from keywarp.engines.motion.vectors import MotionVectors

__all__ = [
    "DIS",
    "Area",
    "ChainedTracker",
    "CheckedFlow",
    "CodecTracker",
    "DirectTracker",
    "FlowCheck",
    "FlowName",
    "MotionName",
    "MotionSource",
    "MotionTracker",
    "MotionVectors",
    "OpticalFlow",
    "stay_inside",
    "to_cells",
    "to_pixels",
]
