"""Labelled clips as a data set: pairs and snippets within shots, and motion that is synthesised or measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keywarp.datasets.augmentation import Augmentation
from keywarp.datasets.clips import Clip
from keywarp.datasets.motion import SyntheticMotion, dense_flow, synthetic_pair
from keywarp.datasets.samples import MAX_GAP, FlowPair, FramePair, Snippet, Truth


@dataclass(frozen=True)
class LabelledClip:
    """A clip with labels for all its frames, and the weight with which it is sampled."""

    clip: Clip
    labels: npt.NDArray[np.uint8]  # (T, H, W)
    weight: float = 1.0

    def __len__(self) -> int:
        """Return the number of frames that are in a shot."""
        return sum(map(len, self.clip.shots))

    def frame(self, random: np.random.Generator) -> int:
        """Draw a frame's index, uniformly over all shots."""
        lengths = np.array([len(shot) for shot in self.clip.shots])
        shot = self.clip.shots[int(random.choice(len(lengths), p=lengths / lengths.sum()))]
        return int(random.integers(shot.start, shot.stop))

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw a pair within a shot. The gap is uniform in 0..max_gap, but doesn't reach back before the shot."""
        current = self.frame(random)
        gap = int(random.integers(min(max_gap, current - self.clip.shot_of(current).start) + 1))
        frames = self.clip.frames
        return FramePair(frames[current], frames[current - gap], gap, Truth(labels=self.labels[current]))

    def snippets(self, length: int) -> Iterator[Snippet]:
        """Yield every frame with the frames before it in its shot."""
        for shot in self.clip.shots:
            for index in shot:
                first = max(shot.start, index - length + 1)
                frames = [self.clip.frames[n] for n in range(first, index + 1)]
                yield Snippet(f"{self.clip.name} {index}", frames, Truth(labels=self.labels[index]))


class ClipFlowSource:
    """Pairs of clips' frames with their motion, as augmented crops.

    The motion is either synthetic, and thus exact, or that of real frames, measured by another method.
    """

    def __init__(
        self, clips: Sequence[LabelledClip], augmentation: Augmentation, synthetic_share: float, motion: SyntheticMotion
    ) -> None:
        """Set up the drawing of pairs.

        Args:
            clips: The clips.
            augmentation: The distribution of crops.
            synthetic_share: The fraction of samples with synthetic motion. The others are real frames up to nine apart,
                in either order.
            motion: The size of the synthetic motion.
        """
        self._clips = clips
        self._weights = np.array([clip.weight for clip in clips]) / sum(clip.weight for clip in clips)
        self._augmentation = augmentation
        self._synthetic_share = synthetic_share
        self._motion = motion

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw two images and the motion between them."""
        return self._synthetic(random) if random.random() < self._synthetic_share else self._measured(random)

    def _synthetic(self, random: np.random.Generator) -> FlowPair:
        crops = []
        for _ in range(3):
            source = self._source(random)
            picture = source.clip.frames[source.frame(random)]
            crops.append(self._augmentation.draw_crop(picture, random).image(picture))
        return FlowPair(*synthetic_pair(crops[0], crops[1:], self._motion, random))

    def _measured(self, random: np.random.Generator) -> FlowPair:
        source = self._source(random)
        first = source.frame(random)
        shot = source.clip.shot_of(first)
        low, high = max(shot.start, first - MAX_GAP), min(shot.stop, first + MAX_GAP + 1)
        second = int(random.integers(low, high))
        crop = self._augmentation.draw_crop(source.clip.frames[first], random)
        current, key = crop.image(source.clip.frames[first]), crop.image(source.clip.frames[second])
        return FlowPair(current, key, dense_flow(current, key))

    def _source(self, random: np.random.Generator) -> LabelledClip:
        return self._clips[int(random.choice(len(self._clips), p=self._weights))]
