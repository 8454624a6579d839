"""What an engine finds on a frame."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class FrameKind(StrEnum):
    """How a frame's features came about."""

    KEY = "key"  # by the feature network
    PROPAGATED = "propagated"  # moved here from the key frame


class KeyReason(StrEnum):
    """Why a frame became a key frame."""

    START = "start"  # the stream begins
    GAP = "gap"  # frames before it are missing or failed
    SIZE = "size"  # its size isn't the key frame's
    INTERVAL = "interval"  # the schedule's interval is over
    CHANGE = "change"  # motion explains too little of what changed since the key frame
    CUT = "cut"  # another scene than the frame before


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """One class id per pixel."""

    labels: NDArray[np.uint8]  # (h, w) at the model's resolution


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Objects, the most certain first. The names are the client's, and those of the package supervision.

    A box covers x1 <= x < x2 and y1 <= y < y2: one around the frame's first pixel is (0, 0, 1, 1).
    """

    xyxy: NDArray[np.float32]  # (n, 4): x1, y1, x2, y2 in pixels of the frame
    confidence: NDArray[np.float32]  # (n,), 0..1
    class_id: NDArray[np.intp]  # (n,), never the background


Output = LabelMap | Detections


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """The result on one frame of a stream."""

    index: int  # position in the stream, from 0; 0 if `Engine` returned the result itself
    kind: FrameKind
    key_age: int  # frames since the key frame; 0 on a key frame, and if `Engine` returned the result itself
    height: int  # of the frame, pixels
    width: int
    output: Output
    inference: float  # seconds until the network's outputs were there; includes compiling and other streams' frames
    postprocess: float  # seconds from the network's outputs to `output`
    reason: KeyReason | None = None  # why it is a key frame; None: it isn't
    change: float | None = None  # 0..1, what motion doesn't explain since the key frame; None: not measured
    queue: float = 0.0  # seconds the frame waited for the device
    turn: float = 0.0  # seconds of `queue` in which it was the session's next, and waited only for other sessions

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Class ids (h, w) at the model's resolution.

        Raises:
            ValueError: The model's task isn't segmentation.
        """
        if not isinstance(self.output, LabelMap):
            raise ValueError("the model detects objects: its results have no labels")
        return self.output.labels

    @property
    def detections(self) -> Detections:
        """The objects.

        Raises:
            ValueError: The model's task isn't detection.
        """
        if not isinstance(self.output, Detections):
            raise ValueError("the model labels pixels: its results have no detections")
        return self.output
