"""Random crops of frames, with changed size, brightness and colours, to train on."""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.motion import Flow
from keywarp.datasets.samples import Boxes, FlowPair, FramePair, Truth
from keywarp.datasets.types import IGNORE, Image, Labels

GREY = 114  # close to the image mean that networks subtract
VISIBLE = 0.25  # minimum fraction of a box inside the crop for the box to be kept


@dataclass(frozen=True)
class Augmentation:
    """The distribution of crops. Both frames of a pair get the same crop."""

    height: int  # the crop's, pixels
    width: int  # the crop's, pixels
    zoom: tuple[float, float] = (0.8, 1.5)  # range of the magnification, uniform in the logarithm
    gain: float = 0.25  # largest deviation from 1 of the brightness factor
    tint: float = 0.08  # largest deviation from 1 of each colour channel's further factor
    flip: float = 0.5  # fraction of mirrored samples

    def draw_crop(self, frame: Image, random: np.random.Generator) -> "Crop":
        """Draw a crop for frames of this frame's size."""
        height, width = frame.shape[:2]
        zoom = float(np.exp(random.uniform(*np.log(self.zoom))))
        # the range of the crop's start, in source pixels; a crop larger than the frame is centred on it
        spare = np.array([width - self.width / zoom, height - self.height / zoom])
        start = np.where(spare > 0, random.uniform(0, 1, 2) * spare, spare / 2)
        mirror = bool(random.random() < self.flip)
        gain = random.uniform(1 - self.gain, 1 + self.gain) * random.uniform(1 - self.tint, 1 + self.tint, 3)
        return Crop(self.height, self.width, zoom, (float(start[0]), float(start[1])), mirror, gain)

    def pair(self, pair: FramePair, random: np.random.Generator) -> FramePair:
        """Crop a pair and its ground truth."""
        crop = self.draw_crop(pair.current, random)
        if pair.truth.boxes is not None:
            crop = replace(crop, border=cv2.BORDER_CONSTANT)  # a mirrored copy of an object would have no box
        current = crop.image(pair.current)
        truth = Truth(
            labels=None if pair.truth.labels is None else crop.labels(pair.truth.labels),
            boxes=None if pair.truth.boxes is None else crop.boxes(pair.truth.boxes),
        )
        return FramePair(current, crop.image(pair.key) if pair.gap else current, pair.gap, truth)

    def flow_pair(self, pair: FlowPair, random: np.random.Generator) -> FlowPair:
        """Crop two images and the motion between them."""
        crop = self.draw_crop(pair.current, random)
        return FlowPair(crop.image(pair.current), crop.image(pair.key), crop.flow(pair.flow))


@dataclass(frozen=True)
class Crop:
    """A drawn crop."""

    height: int  # pixels
    width: int  # pixels
    zoom: float  # magnification
    start: tuple[float, float]  # x, y in source pixels
    mirror: bool
    gain: npt.NDArray[np.float64]  # (3,), factors on R, G, B
    border: int = cv2.BORDER_REFLECT_101  # outside the frame: the mirrored frame, or grey (constant)

    def image(self, frame: Image) -> Image:
        """Crop a frame, resample it and change its brightness and colours."""
        cut = self._cut(frame, cv2.INTER_LINEAR, self.border, GREY)
        return np.asarray(np.clip(cut * self.gain.astype(np.float32), 0, 255), np.uint8)

    def labels(self, labels: Labels) -> Labels:
        """Crop labels. They are `IGNORE` outside the frame."""
        return np.asarray(self._cut(labels, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT), np.uint8)

    def boxes(self, boxes: Boxes) -> Boxes:
        """Clip boxes to the crop, and leave out those that are mostly outside it."""
        corners = (boxes.corners - np.tile(self.start, 2)) * self.zoom
        if self.mirror:
            corners = np.stack(
                [self.width - corners[:, 2], corners[:, 1], self.width - corners[:, 0], corners[:, 3]], 1
            )
        clipped = np.clip(corners, 0, [self.width, self.height] * 2)
        kept = _areas(clipped) > np.maximum(VISIBLE * _areas(corners), 1)
        return Boxes(clipped[kept].astype(np.float32), boxes.classes[kept])

    def flow(self, flow: Flow) -> Flow:
        """Crop a flow and convert it to pixels of the crop."""
        cut = self._cut(flow, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE) * self.zoom
        return np.asarray(cut * (-1, 1) if self.mirror else cut, np.float32)

    def _cut(
        self, source: npt.NDArray[Any], interpolation: int, border: int, outside: int = IGNORE
    ) -> npt.NDArray[Any]:
        step = 1 / self.zoom
        # pixel centres: the crop's pixel x is at start + (x + 0.5) * step - 0.5 in the source
        shift = [self.start[0] + 0.5 * step - 0.5, self.start[1] + 0.5 * step - 0.5]
        matrix = np.array([[step, 0, shift[0]], [0, step, shift[1]]])
        if self.mirror:
            matrix[0] = [-step, 0, shift[0] + (self.width - 1) * step]
        return cv2.warpAffine(
            source,
            matrix,
            (self.width, self.height),
            flags=interpolation | cv2.WARP_INVERSE_MAP,
            borderMode=border,
            borderValue=[outside] * 3,
        )


def _areas(corners: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    size = np.maximum(corners[:, 2:] - corners[:, :2], 0)
    return np.asarray(size[:, 0] * size[:, 1])
