"""Pairs of real frames with the flow that optical flow finds between them, where it explains the frames.

The teacher is OpenCV's DIS, both directly and chained: the flows from each frame to the one before, composed. Small
steps are easier to follow, so the chain finds motion that is too large for DIS itself. At every pixel the one that
explains the frames better is taken. Where neither does, the motion is unknown, which is written as "not a number".

More is known if the camera stands still: where the frames are alike, nothing moves, and only where they differ does the
teacher count. Otherwise the flow of a walker would bleed into the plain ground beside it, which it explains as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.clips import Clip
from keywarp.datasets.errors import DataError
from keywarp.datasets.motion import Flow, dense_flow
from keywarp.datasets.samples import FlowPair, FlowSource
from keywarp.datasets.types import Image

MAX_GAP = 9  # frames
EXPLAINED = 10.0  # grey levels: beyond that, a difference after warping is unexplained
ALIKE = 4.0  # grey levels: up to that, frames of a still camera are alike
WINDOW = 5  # pixels: differences are averaged over windows of this side


@dataclass(frozen=True, eq=False)
class TaughtClip:
    """A clip with the flow from each frame to the one before."""

    clip: Clip  # in half size
    still: bool  # whether the camera stands still
    flows: npt.NDArray[np.float16]  # (T, H, W, 2); zero for the first frame of a shot


def teach(clip: Clip, still: bool) -> TaughtClip:
    """Estimate the flow from each frame of a clip to the one before."""
    flows = np.zeros((*clip.frames.shape[:3], 2), np.float16)
    for shot in clip.shots:
        for index in shot[1:]:
            flows[index] = dense_flow(clip.frames[index], clip.frames[index - 1])
    return TaughtClip(clip, still, flows)


class TaughtPairs:
    """Pairs of frames of clips, up to `MAX_GAP` frames apart."""

    def __init__(self, clips: Sequence[TaughtClip], height: int, width: int) -> None:
        """Set up the drawing of pairs.

        Args:
            clips: The clips, all of which are drawn equally often.
            height: The pairs' height in pixels.
            width: The pairs' width in pixels.

        Raises:
            DataError: If there is no clip, or a clip is smaller than the pairs.
        """
        small = [c.clip.name for c in clips if c.flows.shape[1] < height or c.flows.shape[2] < width]
        if not clips or small:
            raise DataError(
                f"pairs of {width}x{height} pixels need clips at least that large, unlike {small or 'none'}"
            )
        self._clips = clips
        self._size = (height, width)

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw two frames."""
        taught = self._clips[int(random.integers(len(self._clips)))]
        shots = [shot for shot in taught.clip.shots if len(shot) > 1]
        lengths = np.array([len(shot) for shot in shots], float)
        shot = shots[int(random.choice(len(shots), p=lengths / lengths.sum()))]
        gap = int(random.integers(1, min(MAX_GAP, len(shot) - 1) + 1))
        first = int(random.integers(shot.start, shot.stop - gap))
        current, key = taught.clip.frames[first + gap], taught.clip.frames[first]
        flow = best_flow(taught, first + gap, first)
        height, width = self._size
        top = int(random.integers(current.shape[0] - height + 1))
        left = int(random.integers(current.shape[1] - width + 1))
        part = (slice(top, top + height), slice(left, left + width))
        current, key, flow = current[part], key[part], flow[part]
        if random.random() < 0.5:
            current, key, flow = current[:, ::-1], key[:, ::-1], flow[:, ::-1] * np.array([-1, 1], np.float32)
        return FlowPair(*(np.ascontiguousarray(x) for x in (current, key, flow)))


class MixedPairs:
    """Pairs of two sources."""

    def __init__(self, first: FlowSource, second: FlowSource, share: float) -> None:
        """Mix two sources; `share` is the probability of the second."""
        self._first, self._second, self._share = first, second, share

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw a pair of one of the sources."""
        return (self._second if random.random() < self._share else self._first).flow_pair(random)


def best_flow(taught: TaughtClip, current: int, key: int) -> Flow:
    """Return the flow between two frames of a shot, "not a number" where it is unknown."""
    frames = taught.clip.frames
    chained = taught.flows[current].astype(np.float32)
    for index in range(current - 1, key, -1):
        chained = chained + _sample(taught.flows[index].astype(np.float32), chained)
    candidates = [chained]
    if current - key > 1:
        candidates.append(dense_flow(frames[current], frames[key]))
    differences = [_difference(frames[current], frames[key], flow) for flow in candidates]
    choice = np.argmin(differences, axis=0)
    flow = np.asarray(np.choose(choice[..., None], candidates), np.float32)
    unexplained = np.min(differences, axis=0) > EXPLAINED
    rows, columns = np.indices(choice.shape, np.float32)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    outside = (x < 0) | (y < 0) | (x > choice.shape[1] - 1) | (y > choice.shape[0] - 1)
    flow[unexplained | outside] = np.nan
    if taught.still:
        still = _difference(frames[current], frames[key], np.zeros_like(flow))
        flow[still <= EXPLAINED] = np.nan
        flow[still <= ALIKE] = 0
    return flow


def _difference(current: Image, key: Image, flow: Flow) -> npt.NDArray[np.float32]:
    """Return how badly a flow explains the images, in grey levels around every pixel."""
    difference = cv2.absdiff(_sample(key, flow), current).mean(axis=-1, dtype=np.float32)
    return np.asarray(cv2.blur(difference, (WINDOW, WINDOW)), np.float32)


def _sample(image: npt.NDArray[np.generic], flow: Flow) -> npt.NDArray[np.generic]:
    rows, columns = np.indices(flow.shape[:2], np.float32)
    points = (columns + flow[..., 0], rows + flow[..., 1])
    return np.asarray(cv2.remap(image, *points, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
