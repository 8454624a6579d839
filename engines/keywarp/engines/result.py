"""The results of processing frames."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.masks import InstanceMasks

NO_TRACK: Final = -1  # the track id of objects that belong to no track, or not yet


class FrameKind(StrEnum):
    """How a frame's features were obtained."""

    KEY = "key"  # computed by the feature network
    PROPAGATED = "propagated"  # warped from the key frame


class KeyReason(StrEnum):
    """Why a frame became a key frame."""

    START = "start"  # the stream begins
    GAP = "gap"  # frames before it are missing or have failed
    SIZE = "size"  # its size differs from the key frame's
    AGE = "age"  # the key frame is older than the stream allows
    INTERVAL = "interval"  # the schedule's interval is over
    CHANGE = "change"  # motion doesn't explain enough of the change since the key frame
    CUT = "cut"  # it shows another scene than the frame before


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """The result of segmentation: one class id per pixel."""

    labels: NDArray[np.uint8]  # (h, w) at the model's resolution; they cover the frame, without any padding


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The result of detection: objects, the most certain first. Fields are named as in the package supervision.

    A box covers x1 <= x < x2 and y1 <= y < y2. The box of a frame's first pixel is (0, 0, 1, 1).
    """

    xyxy: NDArray[np.float32]  # (n, 4): x1, y1, x2, y2 in pixels of the frame
    confidence: NDArray[np.float32]  # (n,), 0..1
    class_id: NDArray[np.intp]  # (n,), never 0, the background
    # (n,), 0..1: how well the motion since the key frame explains the frame in each box; None on key frames
    reliability: NDArray[np.float32] | None = None
    masks: InstanceMasks | None = None  # at the model's resolution, each inside its box; None if the model has none
    # (n, K, 3): x and y in pixels of the frame, perhaps outside of it, and confidence, 0..1; None if there are none
    keypoints: NDArray[np.float32] | None = None
    track_id: NDArray[np.int64] | None = None  # (n,), from 1, or `NO_TRACK`; None if objects aren't tracked

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.xyxy)

    def take(self, indices: NDArray[np.intp]) -> "Detections":
        """Return some of the objects."""
        return Detections(
            self.xyxy[indices],
            self.confidence[indices],
            self.class_id[indices],
            None if self.reliability is None else self.reliability[indices],
            None if self.masks is None else self.masks.take(indices.tolist()),
            None if self.keypoints is None else self.keypoints[indices],
            None if self.track_id is None else self.track_id[indices],
        )


@dataclass(frozen=True, slots=True, eq=False)
class DenseMap:
    """The result of a model for dense maps: a number per pixel, such as the depth."""

    values: NDArray[np.float32]  # (h, w) at the head's resolution, all finite; they cover the frame, without padding


Output = LabelMap | Detections | DenseMap


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FrameResult:
    """The result of one frame of a stream."""

    index: int  # position in the stream, from 0; always 0 in what `Engine` itself returns
    kind: FrameKind
    key_age: int  # frames since the key frame, dropped ones included; always 0 in what `Engine` itself returns
    height: int  # of the frame, pixels
    width: int  # of the frame, pixels
    output: Output
    inference: float  # seconds until the networks' outputs were ready, including compilation and other streams' frames
    postprocess: float  # seconds from the networks' outputs to `output`
    reason: KeyReason | None = None  # why it is a key frame, or None if it isn't one
    change: float | None = None  # 0..1, the change since the key frame that motion doesn't explain; None: not measured
    key_age_seconds: float = 0.0  # seconds since the key frame
    motion: str | None = None  # the motion source that was really used; None on key frames
    # (2, h, w), to the key frame, (dx, dy) in cells of the finest feature map, the first of them in the frame's corner
    flow: NDArray[np.float32] | None = None
    reliability: float | None = None  # 0..1, mean of `reliability_map` where it matters; None: nothing was propagated
    reliability_map: NDArray[np.float32] | None = None  # (h, w), how well motion explains each of these cells, 0..1
    # (C, h, w) each, what the head saw, in the cells that see any of the frame; with `keep_features`
    features: tuple[NDArray[np.float32], ...] | None = None
    queue: float = 0.0  # seconds the frame waited for the device
    share: float = 1.0  # 0..1, of the device, on which it ran
    # seconds of the whole device in which its key frame's features were computed between other frames; 0 unless it is
    # the first to use them
    overlapped: float = 0.0
    turn: float = 0.0  # seconds of `queue` in which it was the session's next frame and waited for other sessions only

    def __repr__(self) -> str:
        """Return one short line, without the arrays."""
        age = "" if self.kind is FrameKind.KEY else f", key age {self.key_age}"
        if isinstance(self.output, Detections):
            found = f"{len(self.output)} objects"
        else:
            array = self.output.labels if isinstance(self.output, LabelMap) else self.output.values
            found = f"{'labels' if isinstance(self.output, LabelMap) else 'values'} {array.shape}"
        milliseconds = 1000 * (self.inference + self.postprocess)
        return f"<frame {self.index}: {self.kind}{age}, {self.width}x{self.height}, {found}, {milliseconds:.1f} ms>"

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The class ids, (h, w), at the model's resolution.

        Raises:
            ValueError: If the model's task isn't segmentation.
        """
        if not isinstance(self.output, LabelMap):
            raise ValueError(f"this model {self._found}: its results have no labels")
        return self.output.labels

    @property
    def detections(self) -> Detections:
        """The detected objects.

        Raises:
            ValueError: If the model's task isn't detection.
        """
        if not isinstance(self.output, Detections):
            raise ValueError(f"this model {self._found}: its results have no detections")
        return self.output

    @property
    def values(self) -> NDArray[np.float32]:
        """The numbers of a dense map, (h, w), at the head's resolution.

        Raises:
            ValueError: If the model's task isn't `dense`.
        """
        if not isinstance(self.output, DenseMap):
            raise ValueError(f"this model {self._found}: its results have no values")
        return self.output.values

    @property
    def _found(self) -> str:
        """What the result is, and where to find it, for errors."""
        if isinstance(self.output, Detections):
            return "detects objects, see `detections`"
        return "labels pixels, see `labels`" if isinstance(self.output, LabelMap) else "gives maps, see `values`"
