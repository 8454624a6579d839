"""What data sets yield: pairs of frames to train on, snippets to evaluate on, flow to pre-train on.

A data set implements the protocols that it has the labels for. Drawing depends on nothing but the generator that is
handed in, so that equal seeds draw equal samples in whatever order and process.
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
    classes: npt.NDArray[np.int64]  # (n,), from 1 on: 0 is the background


@dataclass(frozen=True)
class Truth:
    """What is known of a frame: one of the two or both."""

    labels: Labels | None = None  # (H, W)
    boxes: Boxes | None = None


@dataclass(frozen=True)
class FramePair:
    """A labelled frame and the key frame that it is predicted from (Figure 2b)."""

    current: Image
    key: Image  # of the same size; where `gap` is 0 the same frame
    gap: int  # i - k, frames
    truth: Truth  # of the current frame


@dataclass(frozen=True)
class Snippet:
    """Consecutive frames, the last of which is labelled."""

    name: str  # unique in its data set, for people
    frames: Sequence[Image]  # oldest first; may decode when indexed
    truth: Truth  # of the last one


@dataclass(frozen=True)
class FlowPair:
    """Two images and the motion between them."""

    current: Image
    key: Image
    flow: Flow  # (H, W, 2): backward, (dx, dy) in pixels from current to key


class PairSource(Protocol):
    """Labelled video, or labelled photographs, to train on."""

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw one; the gap is uniform in 0..max_gap, as far as the video reaches back."""
        ...


class SnippetSource(Protocol):
    """Labelled video to evaluate on."""

    def __len__(self) -> int:
        """How many labelled frames there are."""
        ...

    def snippets(self, length: int) -> Iterator[Snippet]:
        """Every labelled frame with the `length` - 1 frames before it, always in the same order.

        Where a video doesn't reach back so far the snippet is shorter.
        """
        ...


class FlowSource(Protocol):
    """Motion to pre-train on."""

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw one."""
        ...
