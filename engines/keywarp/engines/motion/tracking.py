"""Motion since a key frame: estimated directly, or composed frame by frame.

A tracker belongs to one key frame of one stream. It sees the frames after the key frame in order, and returns the flow
from each of them to the key frame.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.motion.interface import OpticalFlow
from keywarp.engines.motion.vectors import MotionVectors

Image = NDArray[np.uint8]
Flow = NDArray[np.float32]


class MotionTracker(Protocol):
    """The motion since one key frame."""

    @property
    def source(self) -> str:
        """The name of the motion source that the last flow came from, such as `dis-chained`."""
        ...

    def advance(self, current: Image, vectors: Sequence[MotionVectors | None] = ()) -> Flow:
        """Return the flow from a frame to the key frame.

        Args:
            current: The frame, uint8 (H, W, 3), RGB, at the size of the flow network's input.
            vectors: The motion vectors of each decoded frame since the last call, the last ones of this frame; None for
                frames without vectors, and empty for sources without vectors at all.

        Returns:
            The flow, (H, W, 2), (dx, dy) in pixels: pixel p of `current` comes from p + flow(p) in the key frame.
        """
        ...

    def fork(self) -> "MotionTracker":
        """Return a tracker of the motion since the last frame, which becomes another key frame.

        It follows this one: each frame that this one advances to is also the other one's, until that takes over.
        """
        ...


class DirectTracker:
    """Estimates the motion between each frame and the key frame."""

    def __init__(self, estimator: OpticalFlow, key: Image) -> None:
        """Start at a key frame.

        Args:
            estimator: The optical flow.
            key: The key frame, as in `advance`.
        """
        self._estimator = estimator
        self._key = self._last = key
        self.source = estimator.name

    def advance(self, current: Image, vectors: Sequence[MotionVectors | None] = ()) -> Flow:  # noqa: ARG002
        """See `MotionTracker.advance`."""
        self._last = current
        return self._estimator.estimate(current, self._key)

    def fork(self) -> "DirectTracker":
        """See `MotionTracker.fork`."""
        return DirectTracker(self._estimator, self._last)


class ChainedTracker:
    """Composes the motion between successive frames, which keeps the displacements to estimate small.

    Errors of the steps add up, and nothing here corrects them: `FlowCheck.repair` does.
    """

    def __init__(self, estimator: OpticalFlow, key: Image) -> None:
        """Start at a key frame.

        Args:
            estimator: The optical flow between successive frames.
            key: The key frame, as in `advance`.
        """
        self._estimator = estimator
        self._last = key
        self._flow: Flow | None = None  # from the last frame to the key frame
        self._fork: ChainedTracker | None = None
        self.source = f"{estimator.name}-chained"

    def advance(self, current: Image, vectors: Sequence[MotionVectors | None] = ()) -> Flow:  # noqa: ARG002
        """See `MotionTracker.advance`."""
        step = self._estimator.estimate(current, self._last)
        if self._fork:
            self._fork._follow(current, step)
        return self._follow(current, step)

    def fork(self) -> "ChainedTracker":
        """See `MotionTracker.fork`. The steps that this tracker estimates are the other one's, too."""
        self._fork = ChainedTracker(self._estimator, self._last)
        return self._fork

    def _follow(self, current: Image, step: Flow) -> Flow:
        self._flow = step if self._flow is None else compose(step, self._flow)
        self._last = current
        return self._flow


def compose(step: Flow, before: Flow) -> Flow:
    """Return the flow of two steps: from the current frame to the frame before, and from there to the key frame.

    Args:
        step: The flow from the current frame to the frame before, (H, W, 2) in pixels.
        before: The flow from the frame before to the key frame, (H, W, 2) in pixels.
    """
    return step + move(before, step)


def move(content: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """Sample an image or flow where a flow points, bilinearly. Beyond the border it repeats the nearest pixels.

    Args:
        content: The image or flow to sample, (H, W) or (H, W, C).
        flow: The flow, (H, W, 2) in pixels.
    """
    height, width = flow.shape[:2]
    source = pixel_grid(height, width) + flow
    moved = cv2.remap(content, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(moved)


@lru_cache(maxsize=16)
def pixel_grid(height: int, width: int) -> NDArray[np.float32]:
    """Return the x and y of each pixel, (H, W, 2)."""
    ys, xs = np.mgrid[:height, :width]
    return np.stack([xs, ys], axis=-1).astype(np.float32)
