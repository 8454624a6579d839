"""Pairs of real frames whose motion nobody knows, mixed with generated pairs whose motion is known."""

from collections.abc import Sequence

import numpy as np

from keywarp.datasets.clips import Clip
from keywarp.datasets.errors import DataError
from keywarp.datasets.samples import FlowPair, FlowSource
from keywarp.datasets.types import Image

MAX_GAP = 9  # frames


class UnlabelledPairs:
    """Pairs of frames of clips, up to `MAX_GAP` frames apart, in both directions of time.

    Their flow is not a number everywhere, which stands for "unknown".
    """

    def __init__(self, clips: Sequence[Clip], height: int, width: int) -> None:
        """Set up the drawing of pairs.

        Args:
            clips: Clips in the size that pairs are cropped from; all are drawn equally often.
            height: The pairs' height in pixels.
            width: The pairs' width in pixels.

        Raises:
            DataError: If there is no clip, or a clip is smaller than the pairs.
        """
        small = [clip.name for clip in clips if clip.frames.shape[1] < height or clip.frames.shape[2] < width]
        if not clips or small:
            raise DataError(f"pairs of {width}x{height} pixels need clips at least that large, unlike {small or 'none'}")
        self._shots = [[(clip.frames, shot) for shot in clip.shots if len(shot) > 1] for clip in clips]
        self._size = (height, width)

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw two frames."""
        shots = self._shots[int(random.integers(len(self._shots)))]
        lengths = np.array([len(shot) for _, shot in shots], float)
        frames, shot = shots[int(random.choice(len(shots), p=lengths / lengths.sum()))]
        gap = int(random.integers(1, min(MAX_GAP, len(shot) - 1) + 1))
        first = int(random.integers(shot.start, shot.stop - gap))
        pair = [frames[first + gap], frames[first]]
        if random.random() < 0.3:
            pair.reverse()
        height, width = self._size
        top = int(random.integers(pair[0].shape[0] - height + 1))
        left = int(random.integers(pair[0].shape[1] - width + 1))
        mirror = -1 if random.random() < 0.5 else 1
        current, key = (_crop(image, top, left, height, width, mirror) for image in pair)
        return FlowPair(current, key, np.full((height, width, 2), np.nan, np.float32))


class MixedPairs:
    """Pairs of two sources."""

    def __init__(self, first: FlowSource, second: FlowSource, share: float) -> None:
        """Mix two sources; `share` is the probability of the second."""
        self._first, self._second, self._share = first, second, share

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw a pair of one of the sources."""
        return (self._second if random.random() < self._share else self._first).flow_pair(random)


def _crop(image: Image, top: int, left: int, height: int, width: int, mirror: int) -> Image:
    return np.ascontiguousarray(image[top : top + height, left : left + width][:, ::mirror])
