"""Pixel labels for a clip: the teacher's evidence, put to the vote between neighbouring frames.

A detector flickers. Evidence from the frames around is moved along dense optical flow onto each frame and averaged, so
that an object needs support over time; where the support is neither strong nor absent the pixel is ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keywarp.datasets.clips import Clip
from keywarp.datasets.motion import Flow, dense_flow, warp_image
from keywarp.datasets.types import IGNORE, Image, Labels

Evidence = npt.NDArray[np.float32]  # (classes - 1, H, W), 0..1


@dataclass(frozen=True)
class VotingRule:
    """How evidence becomes labels."""

    accept: tuple[float, ...]  # per class but the background: mean evidence from which a pixel gets the class
    reject: float = 0.4  # of `accept`: with less a pixel is background; between the two it's ignored
    offsets: tuple[int, ...] = (-6, -3, -1, 0, 1, 3, 6)  # frames that are asked


def label_clip(
    clip: Clip, teacher: Callable[[Image], Evidence], vote: VotingRule, progress: Callable[[], None] = lambda: None
) -> npt.NDArray[np.uint8]:
    """Label every frame of a clip.

    Args:
        clip: The video.
        teacher: Frame -> evidence.
        vote: The rule.
        progress: Called once a frame.

    Returns:
        (T, H, W): class ids, 0 the background; `IGNORE` where the vote is open.
    """
    labels = np.full(clip.frames.shape[:3], IGNORE, np.uint8)
    for shot in clip.shots:
        seen: dict[int, npt.NDArray[np.uint8]] = {}
        for index in shot:
            for other in shot[
                max(0, index + min(vote.offsets) - shot.start) : index + max(vote.offsets) + 1 - shot.start
            ]:
                if other not in seen:
                    seen[other] = np.asarray(np.rint(teacher(clip.frames[other]) * 255), np.uint8)
            seen = {other: maps for other, maps in seen.items() if other >= index + min(vote.offsets)}
            voters = [index + offset for offset in vote.offsets if index + offset in shot]
            votes = [_moved(seen[other], _flow_between(clip, index, other)) for other in voters]
            labels[index] = decide(np.mean(votes, axis=0), vote)
            progress()
    return labels


def decide(mean: Evidence, vote: VotingRule) -> Labels:
    """Mean evidence -> labels (H, W)."""
    support = mean / np.array(vote.accept, np.float32)[:, None, None]
    best = support.max(axis=0)
    # of several accepted classes the surest one: a rider wins over the bicycle behind the legs
    labels = np.where(best >= 1, np.where(support >= 1, mean, 0).argmax(axis=0) + 1, 0)
    labels[(best >= vote.reject) & (best < 1)] = IGNORE
    return np.asarray(labels, np.uint8)


def _flow_between(clip: Clip, index: int, other: int) -> Flow | None:
    return None if index == other else dense_flow(clip.frames[index], clip.frames[other])


def _moved(maps: npt.NDArray[np.uint8], flow: Flow | None) -> Evidence:
    scaled = np.asarray(maps / 255, np.float32)
    if flow is None:
        return scaled
    return warp_image(np.ascontiguousarray(scaled.transpose(1, 2, 0)), flow).transpose(2, 0, 1)
