"""The samples of data sets: pairs of frames to train on, snippets to evaluate on, and flow to pre-train on.

A data set implements the protocols for which it has labels. Drawing depends only on the generator that is passed in, so
that equal seeds draw equal samples in any order and process.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from keywarp.datasets.motion import Flow
from keywarp.datasets.types import Image, Labels

MAX_GAP = 9  # frames between key and current frame in training: 0 <= i - k <= 9 (section 3 of the paper)


@dataclass(frozen=True)
class Boxes:
    """The objects on a frame. Coordinates are continuous: a box covers x1 <= x < x2."""

    corners: npt.NDArray[np.float32]  # (n, 4): x1, y1, x2, y2 in pixels
    classes: npt.NDArray[np.int64]  # (n,), class ids from 1; 0 is the background


@dataclass(frozen=True)
class Truth:
    """The ground truth of a frame: pixel labels, boxes or both."""

    labels: Labels | None = None  # (H, W)
    boxes: Boxes | None = None


@dataclass(frozen=True)
class FramePair:
    """A labelled frame and the key frame that it is predicted from (Figure 2b)."""

    current: Image
    key: Image  # of the same size; the same frame where `gap` is 0
    gap: int  # i - k, in frames
    truth: Truth  # the current frame's ground truth


@dataclass(frozen=True)
class Snippet:
    """Consecutive frames, the last of which is labelled."""

    name: str  # unique in its data set, for display
    frames: Sequence[Image]  # oldest first; may be decoded when indexed
    truth: Truth  # the last frame's ground truth


@dataclass(frozen=True)
class FlowPair:
    """Two images and the motion between them."""

    current: Image
    key: Image
    flow: Flow  # (H, W, 2): backward, (dx, dy) in pixels from current to key


class PairSource(Protocol):
    """Labelled videos or photographs to train on."""

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw a pair. The gap is uniform in 0..max_gap, but doesn't reach back before the video's first frame."""
        ...


class SnippetSource(Protocol):
    """Labelled video to evaluate on."""

    def __len__(self) -> int:
        """Return the number of labelled frames."""
        ...

    def snippets(self, length: int) -> Iterator[Snippet]:
        """Yield every labelled frame with the `length` - 1 frames before it, always in the same order.

        A snippet is shorter where the video has fewer frames before the labelled one.
        """
        ...


class FlowSource(Protocol):
    """Images with known motion to pre-train on."""

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw two images and the motion between them."""
        ...
