"""Where the motion between a frame and its key frame comes from."""

from keywarp.engines.motion.cells import to_cells, to_pixels
from keywarp.engines.motion.dis import DIS
from keywarp.engines.motion.interface import OpticalFlow
<<<<<<< HEAD
from keywarp.engines.motion.vectors import MotionVectors

__all__ = ["DIS", "MotionName", "MotionVectors", "OpticalFlow", "open_motion", "to_cells"]

MotionName = Literal["network", "none", "dis"]


def open_motion(name: MotionName) -> Literal["network", "none"] | OpticalFlow:
    """Open a motion source.

    Args:
        name: `network` for the bundle's flow network, `none` for copied features, or `dis` for OpenCV's DIS.

    Returns:
        The optical flow, or `name` itself if it is `network` or `none`, which need nothing outside of the bundle.

    Raises:
        ValueError: If there is no motion source of this name.
    """
    if name == "network" or name == "none":
        return name
    if name == "dis":
        return DIS()
    raise ValueError(f"there is no motion source {name!r}: use one of {', '.join(get_args(MotionName))}")
=======
from keywarp.engines.motion.names import FlowName, MotionName, MotionSource
from keywarp.engines.motion.tracking import ChainedTracker, DirectTracker, MotionTracker
from keywarp.engines.motion.vectors import MotionVectors

__all__ = [
    "DIS",
    "ChainedTracker",
    "DirectTracker",
    "FlowName",
    "MotionName",
    "MotionSource",
    "MotionTracker",
    "MotionVectors",
    "OpticalFlow",
    "to_cells",
    "to_pixels",
]
>>>>>>> main
