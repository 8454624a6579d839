"""Pixel labels for clips, from a teacher's evidence on neighbouring frames.

A detector's results flicker. So the evidence from neighbouring frames is warped onto each frame along dense optical
flow and averaged. An object needs support over time. A pixel whose support is neither strong nor weak is ignored.
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
    """How evidence is converted to labels."""

    accept: tuple[float, ...]  # lowest mean evidence for a pixel to get a class, for each class but the background
    reject: float = 0.4  # fraction of `accept` below which a pixel is background; in between, it is ignored
    offsets: tuple[int, ...] = (-6, -3, -1, 0, 1, 3, 6)  # frames to average, relative to the labelled one


def label_clip(
    clip: Clip, teacher: Callable[[Image], Evidence], rule: VotingRule, progress: Callable[[], None] = lambda: None
) -> npt.NDArray[np.uint8]:
    """Label every frame of a clip.

    Args:
        clip: The video.
        teacher: A function from a frame to the evidence for each class.
        rule: How evidence is converted to labels.
        progress: A function that is called once per frame.

    Returns:
        (T, H, W): class ids, 0 for the background and `IGNORE` where the evidence is undecided.
    """
    labels = np.full(clip.frames.shape[:3], IGNORE, np.uint8)
    for shot in clip.shots:
        seen: dict[int, npt.NDArray[np.uint8]] = {}
        for index in shot:
            for other in shot[
                max(0, index + min(rule.offsets) - shot.start) : index + max(rule.offsets) + 1 - shot.start
            ]:
                if other not in seen:
                    seen[other] = np.asarray(np.rint(teacher(clip.frames[other]) * 255), np.uint8)
            seen = {other: maps for other, maps in seen.items() if other >= index + min(rule.offsets)}
            voters = [index + offset for offset in rule.offsets if index + offset in shot]
            votes = [_warped(seen[other], _flow_between(clip, index, other)) for other in voters]
            labels[index] = decide(np.mean(votes, axis=0), rule)
            progress()
    return labels


def decide(mean: Evidence, rule: VotingRule) -> Labels:
    """Convert mean evidence to labels (H, W)."""
    support = mean / np.array(rule.accept, np.float32)[:, None, None]
    best = support.max(axis=0)
    # if several classes are accepted, the one with the most evidence wins, such as a rider over the bicycle behind
    # the legs
    labels = np.where(best >= 1, np.where(support >= 1, mean, 0).argmax(axis=0) + 1, 0)
    labels[(best >= rule.reject) & (best < 1)] = IGNORE
    return np.asarray(labels, np.uint8)


def _flow_between(clip: Clip, index: int, other: int) -> Flow | None:
    return None if index == other else dense_flow(clip.frames[index], clip.frames[other])


def _warped(maps: npt.NDArray[np.uint8], flow: Flow | None) -> Evidence:
    scaled = np.asarray(maps / 255, np.float32)
    if flow is None:
        return scaled
    return warp_image(np.ascontiguousarray(scaled.transpose(1, 2, 0)), flow).transpose(2, 0, 1)
