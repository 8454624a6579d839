"""Generated clips with known content."""

import cv2
import numpy as np

from keywarp.datasets import Clip, Image, LabelledClip


def textured(height: int, width: int, seed: int = 0) -> Image:
    """A smooth random picture, so that motion in it can be found."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8).reshape(
        height, width, 3
    )


def moving_square(
    frames: int = 12, height: int = 64, width: int = 96, step: int = 2, cut: int | None = None
) -> LabelledClip:
    """A white square that moves right over a textured ground; labelled 1 where it is."""
    pictures = np.stack([textured(height, width)] * frames)
    labels = np.zeros((frames, height, width), np.uint8)
    for index in range(frames):
        left = 8 + step * index
        pictures[index, 20:44, left : left + 24] = 255
        labels[index, 20:44, left : left + 24] = 1
    shots = (range(frames),) if cut is None else (range(cut), range(cut, frames))
    return LabelledClip(Clip("square", pictures, shots), labels)
