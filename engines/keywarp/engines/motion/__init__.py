"""Where the flow between a frame and its key frame comes from, other than the bundle's flow network."""

from typing import Literal, get_args, overload

import numpy as np

from keywarp.engines.motion.cells import to_cells
from keywarp.engines.motion.dis import DIS
from keywarp.engines.motion.interface import OpticalFlow

__all__ = ["DIS", "MotionName", "OpticalFlow", "open_motion", "to_cells"]

InDevice = Literal["network", "none"]  # the bundle's flow network; no motion: features are copied
OpticalFlowName = Literal["dis", "sift-fast", "sift-slow"]
MotionName = Literal[InDevice, OpticalFlowName]


@overload
def open_motion(name: InDevice) -> InDevice: ...


@overload
def open_motion(name: OpticalFlowName) -> OpticalFlow: ...


@overload
def open_motion(name: MotionName) -> InDevice | OpticalFlow: ...


def open_motion(name: MotionName) -> InDevice | OpticalFlow:
    """Open a motion source.

    Args:
        name: `network` and `none` need nothing opened and come back as they are; `dis` is OpenCV's DIS flow;
            `sift-fast` and `sift-slow` are SIFT-Flow as the paper's SFF-fast and SFF-slow use it (Table 3).

    Raises:
        ValueError: There is no source of this name.
    """
    if name == "network" or name == "none":
        return name
    if name == "dis":
        return DIS()
    if name == "sift-fast" or name == "sift-slow":
        # numba, which it is compiled by, takes a while to import
        from keywarp.engines.motion.siftflow import SIFTFlow

        source = SIFTFlow(SIFTFlow.FAST if name == "sift-fast" else SIFTFlow.SLOW)
        tiny = np.zeros((32, 32, 3), np.uint8)
        source.estimate(tiny, tiny)  # compiles: seconds the first time
        return source
    names = ", ".join((*get_args(InDevice), *get_args(OpticalFlowName)))
    raise ValueError(f"no motion source is called {name!r}; there are {names}")
