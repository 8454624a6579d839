"""What comes back for a frame."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keywarp.client import exports
from keywarp.client.images import decode_labels
from keywarp.protocol import Kind, Result

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects on one frame, the most certain first.

    The fields are those of `supervision.Detections`; `FrameResult.to_supervision` makes one.
    """

    xyxy: NDArray[np.float32]  # (n, 4): x1, y1, x2, y2 in pixels of the frame; covers x1 <= x < x2 and y1 <= y < y2
    confidence: NDArray[np.float32]  # (n,), 0..1
    class_id: NDArray[np.intp]  # (n,), never the background

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self.xyxy)


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The server's result on one frame, beside what the client knows of it."""

    result: Result  # as it came over the wire
    image: NDArray[np.uint8] | None = None  # the frame, RGB (H, W, 3); None where it was never decoded here
    latency: float | None = None  # seconds from handing the frame over to its result; None where unknown
    received: float = field(default_factory=time.monotonic)  # when the result came; monotonic seconds

    @property
    def frame(self) -> int:
        """Position in the stream, from 0."""
        return self.result.frame

    @property
    def kind(self) -> Kind:
        """`key` or `propagated`."""
        return self.result.kind

    @property
    def key_age(self) -> int:
        """Frames since the key frame; 0 on a key frame."""
        return self.result.key_age

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Class ids, uint8 (h, w), at the model's resolution.

        Raises:
            ValueError: The model's task isn't segmentation.
            ProtocolError: The server's label map can't be decoded.
        """
        if self.result.segmentation is None:
            raise ValueError("this result has no segmentation: its model's task is another")
        return decode_labels(self.result.segmentation)

    @cached_property
    def frame_labels(self) -> NDArray[np.uint8]:
        """Class ids, uint8 (H, W), at the frame's resolution: of each pixel, what the model says of where it is.

        Raises:
            ValueError: The model's task isn't segmentation.
            ProtocolError: The server's label map can't be decoded.
        """
        rows, columns = (
            (np.arange(size) + 0.5) * cells / size
            for size, cells in zip((self.result.height, self.result.width), self.labels.shape, strict=True)
        )
        return self.labels[rows.astype(np.intp)[:, np.newaxis], columns.astype(np.intp)]

    @cached_property
    def detections(self) -> Detections:
        """The objects as arrays, in pixels of the frame; their names are in `result.detections`.

        Raises:
            ValueError: The model's task isn't detection.
        """
        found = self.result.detections
        if found is None:
            raise ValueError("this result has no detections: its model's task is another")
        return Detections(
            xyxy=np.array([one.xyxy for one in found], np.float32).reshape(-1, 4),
            confidence=np.array([one.confidence for one in found], np.float32),
            class_id=np.array([one.class_id for one in found], np.intp),
        )

    def to_supervision(self) -> "supervision.Detections":
        """Give it to supervision: see `keywarp.client.exports.to_supervision`.

        Example:
            >>> tracked = tracker.update_with_detections(result.to_supervision())
        """
        return exports.to_supervision(self)

    def to_coco(self, image_id: int | None = None) -> list[dict[str, Any]]:
        """Make COCO annotations of it: see `keywarp.client.exports.to_coco`."""
        return exports.to_coco(self, image_id)
