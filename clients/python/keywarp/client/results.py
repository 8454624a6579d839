"""The result of one frame, with its image, its arrays and its latency."""

import time
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keywarp.client import display, exports
from keywarp.client.errors import ProtocolError
from keywarp.client.images import decode_labels, decode_mask, decode_reliability, decode_values
from keywarp.protocol import ClassInfo, Kind, Result

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False, repr=False)
class DetectionArrays:
    """The objects on one frame as arrays, the most confident first.

    The first fields have the names that `supervision.Detections` gives them; `ProcessedFrame.to_supervision` makes one.
    """

    xyxy: NDArray[np.float32]  # (n, 4): x1, y1, x2, y2 in pixels of the frame; covers x1 <= x < x2 and y1 <= y < y2
    confidence: NDArray[np.float32]  # (n,), 0..1
    class_id: NDArray[np.intp]  # (n,), never the background
    # (n,), 0..1: how well the motion since the key frame explains the frame in each box; NaN on key frames
    reliability: NDArray[np.float32]
    # (n, h, w), at the resolution that the stream asked for; None if there are none. See `ProcessedFrame.frame_masks`
    mask: NDArray[np.bool_] | None = None
    # (n, K, 3): x and y in pixels of the frame, perhaps outside of it, and confidence, 0..1; None if there are none
    keypoints: NDArray[np.float32] | None = None
    track_id: NDArray[np.intp] | None = None  # (n,), -1 for objects without one; None if none has one

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.xyxy)

    def __repr__(self) -> str:
        """Name the arrays and their shapes."""
        arrays = {name: getattr(self, name) for name in (field.name for field in fields(self))}
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items() if array is not None)
        return f"<{len(self)} objects: {shapes}>"


@dataclass(frozen=True, eq=False, repr=False)
class ProcessedFrame:
    """A frame's result as it is on the wire, with the frame's image and latency where they are known.

    Notebooks show it as the annotated picture and a table.
    """

    result: Result
    image: NDArray[np.uint8] | None = None  # the frame, RGB (H, W, 3); None if it was sent without being decoded here
    latency: float | None = None  # seconds from sending the frame to its result; None if unknown
    received: float = field(default_factory=time.monotonic)  # when the result arrived; monotonic seconds
    label_map: NDArray[np.uint8] | None = None  # (h, w) class ids; None if they are encoded in `result`
    value_map: NDArray[np.float32] | None = None  # (h, w) numbers; None if they are encoded in `result`
    classes: tuple[ClassInfo, ...] = ()  # the model's, for their colours; empty if they are unknown

    def __repr__(self) -> str:
        """Return one short line, without the arrays."""
        return display.to_text(self)

    def _repr_png_(self) -> bytes | None:
        """Return the annotated picture for a notebook, or None without an image or the extra `draw`."""
        return display.to_png(self)

    def _repr_html_(self) -> str:
        """Return the annotated picture and a table for a notebook."""
        return display.to_html(self)

    @property
    def frame(self) -> int:
        """The frame's position in the stream, from 0."""
        return self.result.frame

    @property
    def kind(self) -> Kind:
        """`key` or `propagated`."""
        return self.result.kind

    @property
    def key_age(self) -> int:
        """The number of frames since the key frame, which is 0 on a key frame."""
        return self.result.key_age

    @property
    def key_age_seconds(self) -> float | None:
        """The seconds since the key frame, or None if the server doesn't measure them."""
        return self.result.key_age_seconds

    @property
    def reliability(self) -> float | None:
        """How well the motion since the key frame explains the frame where it matters, 0..1; None on key frames."""
        return self.result.reliability

    @cached_property
    def reliability_map(self) -> NDArray[np.float32] | None:
        """The reliability of each cell of the finest feature map, 0..1, (h, w).

        It is None on key frames, and if the stream didn't ask for it (`reliability="map"`).

        Raises:
            ProtocolError: If the server's map can't be decoded.
        """
        png = self.result.reliability_png
        return None if png is None else decode_reliability(png)

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """Class ids, uint8 (h, w), at the resolution that the stream asked for: the model's, or the frame's.

        Raises:
            ValueError: If the model's task isn't segmentation, or the stream asked for no masks.
            ProtocolError: If the server's label map can't be decoded.
        """
        if self.result.segmentation is None:
            raise ValueError("this result has no segmentation: its model has another task")
        return decode_labels(self.result.segmentation) if self.label_map is None else self.label_map

    @cached_property
    def frame_labels(self) -> NDArray[np.uint8]:
        """Class ids, uint8 (H, W), at the frame's resolution: each pixel has the label nearest to its centre.

        Raises:
            ValueError: If the model's task isn't segmentation, or the stream asked for no masks.
            ProtocolError: If the server's label map can't be decoded.
        """
        rows, columns = self._nearest(self.labels.shape)
        labels: NDArray[np.uint8] = self.labels[rows[:, np.newaxis], columns]
        return labels

    @cached_property
    def detections(self) -> DetectionArrays:
        """The objects as arrays, in pixels of the frame. `result.detections` has the names of their classes.

        Raises:
            ValueError: If the model's task isn't detection.
            ProtocolError: If a mask from the server can't be decoded.
        """
        found = self.result.detections
        if found is None:
            raise ValueError("this result has no detections: its model has another task")
        masks = [decode_mask(one.mask, one.name) for one in found if one.mask is not None]
        if len({mask.shape for mask in masks}) > 1:
            raise ProtocolError("the masks of a result should have one size")
        points = [one.keypoints for one in found if one.keypoints is not None]
        tracks = [one.track_id for one in found]
        return DetectionArrays(
            xyxy=np.array([one.xyxy for one in found], np.float32).reshape(-1, 4),
            confidence=np.array([one.confidence for one in found], np.float32),
            class_id=np.array([one.class_id for one in found], np.intp),
            reliability=np.array([one.reliability for one in found], np.float32),  # None becomes NaN
            mask=np.stack(masks) if masks and len(masks) == len(found) else None,
            keypoints=np.array(points, np.float32) if points and len(points) == len(found) else None,
            track_id=np.array([-1 if track is None else track for track in tracks], np.intp) if any(tracks) else None,
        )

    @cached_property
    def frame_masks(self) -> NDArray[np.bool_]:
        """The objects' masks at the frame's resolution, (n, H, W): each pixel is that nearest to its centre.

        Raises:
            ValueError: If the objects have no masks, or the stream asked for none.
            ProtocolError: If a mask from the server can't be decoded.
        """
        masks = self.detections.mask
        if masks is None:
            raise ValueError("these objects have no masks: their model gives none, or the stream asked for none")
        rows, columns = self._nearest(masks.shape[1:])
        enlarged: NDArray[np.bool_] = masks[:, rows[:, np.newaxis], columns]
        return enlarged

    def _nearest(self, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return for each row and column of the frame the nearest one of a map of this shape."""
        rows, columns = (
            ((np.arange(size) + 0.5) * cells / size).astype(np.intp)
            for size, cells in zip((self.result.height, self.result.width), shape, strict=True)
        )
        return rows, columns

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """The numbers of a dense map, float32 (h, w). `result.dense` says what they are.

        They have the resolution that the stream asked for: the model's, or the frame's.

        Raises:
            ValueError: If the model's task isn't `dense`, or the stream asked for no masks.
            ProtocolError: If the server's map can't be decoded.
        """
        if self.result.dense is None:
            raise ValueError("this result has no dense map: its model has another task")
        return decode_values(self.result.dense) if self.value_map is None else self.value_map

    @cached_property
    def frame_values(self) -> NDArray[np.float32]:
        """The numbers of a dense map, float32 (H, W), at the frame's resolution, interpolated bilinearly.

        Raises:
            ValueError: If the model's task isn't `dense`, or the stream asked for no masks.
            ProtocolError: If the server's map can't be decoded.
        """
        size = self.result.width, self.result.height
        return np.asarray(Image.fromarray(self.values).resize(size, Image.Resampling.BILINEAR))

    def to_supervision(self) -> "supervision.Detections":
        """Convert the result for supervision's trackers, zones and annotators.

        `keywarp.client.exports.to_supervision` describes the returned value.

        Example:
            >>> tracked = tracker.update_with_detections(result.to_supervision())
        """
        return exports.to_supervision(self)

    def to_keypoints(self) -> "supervision.KeyPoints":
        """Convert the objects' keypoints for supervision's annotators.

        `keywarp.client.exports.to_keypoints` describes the returned value.
        """
        return exports.to_keypoints(self)

    def to_coco(self, image_id: int | None = None) -> list[dict[str, Any]]:
        """Convert the result to COCO annotations, which `keywarp.client.exports.to_coco` describes."""
        return exports.to_coco(self, image_id)
