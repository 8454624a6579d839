"""What an engine finds on a frame."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class FrameKind(StrEnum):
    """How a frame's features came about."""

    KEY = "key"  # by the feature network
    PROPAGATED = "propagated"  # warped from the key frame


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """One class id per pixel."""

    labels: NDArray[np.uint8]  # (h, w) at the model's resolution


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """The result on one frame of a stream."""

    index: int  # position in the stream, from 0
    kind: FrameKind
    key_age: int  # frames since the key frame; 0 on a key frame
    height: int  # of the frame, pixels
    width: int
    output: Segmentation
    inference: float  # seconds: resize, transfer and network
    postprocess: float  # seconds: from the network's outputs to `output`
