"""Training samples: augmented crops of pairs of frames, with labels or with flow."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.clips import IGNORE, Clip, Image, Labels
from keywarp.datasets.motion import Flow, MadeMotion, dense_flow, made_pair

MAX_GAP = 9  # frames between key and current frame in training: 0 <= i - k <= 9 (section 3 of the paper)


@dataclass(frozen=True)
class Augmentation:
    """How crops differ from frames. Both frames of a pair get the same change."""

    height: int  # of the crop, pixels
    width: int
    zoom: tuple[float, float] = (0.8, 1.5)  # magnification, drawn uniformly in the logarithm
    gain: float = 0.25  # brightness factor per image: 1 +- this
    tint: float = 0.08  # the same per colour channel
    flip: float = 0.5  # share of mirrored samples


@dataclass(frozen=True)
class LabelledClip:
    """A clip with labels for all its frames, and how often it's sampled."""

    clip: Clip
    labels: npt.NDArray[np.uint8]  # (T, H, W)
    weight: float = 1.0


@dataclass(frozen=True)
class LabelledPairs:
    """A batch for joint training: only the current frame is labelled."""

    current: npt.NDArray[np.uint8]  # (N, H, W, 3) RGB
    key: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]  # (N, H, W), of the current frames
    propagated: npt.NDArray[np.bool_]  # (N,): False where current and key are the same frame


@dataclass(frozen=True)
class FlowPairs:
    """A batch for pre-training the flow network."""

    current: npt.NDArray[np.uint8]  # (N, H, W, 3) RGB
    key: npt.NDArray[np.uint8]
    flow: npt.NDArray[np.float32]  # (N, H, W, 2), pixels, current to key


class PairSampler:
    """Draws batches from clips."""

    def __init__(self, clips: list[LabelledClip], augmentation: Augmentation, seed: int) -> None:
        """Prepare to draw.

        Args:
            clips: Where from.
            augmentation: The crops.
            seed: Equal seeds and batch numbers draw equal batches, so that a resumed training goes on as it would have.
        """
        self._clips = clips
        self._weights = np.array([clip.weight for clip in clips]) / sum(clip.weight for clip in clips)
        self._augmentation = augmentation
        self._seed = seed
        self._random = np.random.default_rng(seed)

    def labelled(self, number: int, size: int) -> LabelledPairs:
        """Draw pairs within shots, i - k uniform in 0..9 as far as the shot allows.

        Args:
            number: The batch's.
            size: Of the batch.
        """
        self._random = np.random.default_rng((self._seed, number))
        samples = []
        for _ in range(size):
            source = self._source()
            current = self._frame(source.clip)
            gap = int(self._random.integers(min(MAX_GAP, current - source.clip.shot_of(current).start) + 1))
            view = self._view(source.clip)
            images = view.images([source.clip.frames[current], source.clip.frames[current - gap]])
            samples.append((*images, view.labels(source.labels[current]), gap > 0))
        current_images, key_images, labels, propagated = zip(*samples, strict=True)
        return LabelledPairs(
            np.stack(current_images), np.stack(key_images), np.stack(labels), np.array(propagated, np.bool_)
        )

    def flows(self, number: int, size: int, made_share: float, motion: MadeMotion) -> FlowPairs:
        """Draw pairs with flow.

        Args:
            number: The batch's.
            size: Of the batch.
            made_share: Share of samples whose motion is made, thus exact; the others are real frames up to nine apart,
                in either order, with measured flow.
            motion: How far things move in made samples.
        """
        self._random = np.random.default_rng((self._seed, number))
        samples = [self._made(motion) if self._random.random() < made_share else self._measured() for _ in range(size)]
        current, key, flow = zip(*samples, strict=True)
        return FlowPairs(np.stack(current), np.stack(key), np.stack(flow))

    def _made(self, motion: MadeMotion) -> tuple[Image, Image, Flow]:
        crops = []
        for _ in range(3):
            clip = self._source().clip
            crops.extend(self._view(clip).images([clip.frames[self._frame(clip)]]))
        return made_pair(crops[0], crops[1:], motion, self._random)

    def _measured(self) -> tuple[Image, Image, Flow]:
        clip = self._source().clip
        first = self._frame(clip)
        shot = clip.shot_of(first)
        low, high = max(shot.start, first - MAX_GAP), min(shot.stop, first + MAX_GAP + 1)
        second = int(self._random.integers(low, high))
        current, key = self._view(clip).images([clip.frames[first], clip.frames[second]])
        return current, key, dense_flow(current, key)

    def _source(self) -> LabelledClip:
        return self._clips[int(self._random.choice(len(self._clips), p=self._weights))]

    def _frame(self, clip: Clip) -> int:
        lengths = np.array([len(shot) for shot in clip.shots])
        shot = clip.shots[int(self._random.choice(len(lengths), p=lengths / lengths.sum()))]
        return int(self._random.integers(shot.start, shot.stop))

    def _view(self, clip: Clip) -> "_View":
        a = self._augmentation
        zoom = float(np.exp(self._random.uniform(*np.log(a.zoom))))
        height, width = clip.frames.shape[1:3]
        # where the crop may start, in source pixels; a crop larger than the frame is centred on it
        spare = np.array([width - a.width / zoom, height - a.height / zoom])
        start = np.where(spare > 0, self._random.uniform(0, 1, 2) * spare, spare / 2)
        mirror = bool(self._random.random() < a.flip)
        gain = self._random.uniform(1 - a.gain, 1 + a.gain) * self._random.uniform(1 - a.tint, 1 + a.tint, 3)
        return _View(a.height, a.width, zoom, (float(start[0]), float(start[1])), mirror, gain)


@dataclass(frozen=True)
class _View:
    """One drawn augmentation."""

    height: int
    width: int
    zoom: float
    start: tuple[float, float]  # x, y in source pixels
    mirror: bool
    gain: npt.NDArray[np.float64]  # (3,)

    def images(self, frames: list[Image]) -> list[Image]:
        return [
            np.asarray(
                np.clip(self._cut(frame, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101) * self.gain, 0, 255), np.uint8
            )
            for frame in frames
        ]

    def labels(self, labels: Labels) -> Labels:
        return np.asarray(self._cut(labels, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT), np.uint8)

    def _cut(self, source: npt.NDArray[np.uint8], interpolation: int, border: int) -> npt.NDArray[np.uint8]:
        step = 1 / self.zoom
        # pixel centres: crop pixel x lies at start + (x + 0.5) * step - 0.5 of the source
        shift = [self.start[0] + 0.5 * step - 0.5, self.start[1] + 0.5 * step - 0.5]
        matrix = np.array([[step, 0, shift[0]], [0, step, shift[1]]])
        if self.mirror:
            matrix[0] = [-step, 0, shift[0] + (self.width - 1) * step]
        cut = cv2.warpAffine(
            source,
            matrix,
            (self.width, self.height),
            flags=interpolation | cv2.WARP_INVERSE_MAP,
            borderMode=border,
            borderValue=[IGNORE] * 3,
        )
        return np.asarray(cut, np.uint8)
