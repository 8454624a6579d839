"""From boxes to pixels: which part of a detector's box is the object.

GrabCut separates the box's content from its surroundings by colour, started from a shape that fits the class. Bicycles
are mostly holes, so they keep the rounded box itself.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.detector import TeacherDetection
from keywarp.datasets.types import Image

Mask = npt.NDArray[np.float32]  # (H, W), 0..1

MARGIN = 0.25  # of the box's sides: how much of its surroundings GrabCut sees
WORKING_SIDE = 160  # pixels: larger crops are shrunk to this, ...
SMALLEST_SIDE = 64  # ... and smaller ones enlarged towards this, at most twice
ITERATIONS = 4
EMPTY = 0.25  # of the box: a smaller result means that GrabCut failed


@dataclass(frozen=True)
class ShapePrior:
    """What a class looks like inside its box; ellipses are in units of the half box."""

    power: float  # the exponent of the super-ellipse that probably holds the object: 2 round, 4 nearly a rectangle
    core: tuple[float, float] | None  # half axes of the ellipse that certainly is object; None: don't cut at all


@dataclass(frozen=True)
class TeacherClass:
    """One class of the task, in the teacher's terms."""

    name: str
    color: tuple[int, int, int]  # RGB
    categories: tuple[int, ...]  # the teacher's; empty for the background
    shape: ShapePrior


def evidence(
    frame: Image, detections: list[TeacherDetection], classes: tuple[TeacherClass, ...]
) -> npt.NDArray[np.float32]:
    """Per pixel and class, the score of the surest object there.

    Args:
        frame: (H, W, 3) RGB.
        detections: What the teacher found on it.
        classes: All classes; index 0 is the background.

    Returns:
        (len(classes) - 1, H, W), 0..1: one map for each class but the background.
    """
    maps = np.zeros((len(classes) - 1, *frame.shape[:2]), np.float32)
    for detection in detections:
        for row, taught in zip(maps, classes[1:], strict=True):
            if detection.category in taught.categories:
                np.maximum(row, detection.score * cut_out(frame, detection.box, taught.shape), out=row)
    return maps


def cut_out(frame: Image, box: tuple[float, float, float, float], shape: ShapePrior) -> Mask:
    """The object's mask in the whole frame, with soft edges."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = box
    dx, dy = MARGIN * (x1 - x0) + 4, MARGIN * (y1 - y0) + 4
    left, top = int(max(0, x0 - dx)), int(max(0, y0 - dy))
    right, bottom = int(min(width, x1 + dx)), int(min(height, y1 + dy))
    crop = frame[top:bottom, left:right]
    longest = max(crop.shape[:2])
    factor = WORKING_SIDE / longest if longest > WORKING_SIDE else min(2.0, max(1.0, SMALLEST_SIDE / longest))
    small = cv2.resize(
        crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    )
    inside = _segment(np.asarray(small, np.uint8), np.array([x0 - left, y0 - top, x1 - left, y1 - top]) * factor, shape)
    mask = np.zeros((height, width), np.float32)
    mask[top:bottom, left:right] = cv2.resize(inside, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    return mask


def _segment(crop: Image, box: npt.NDArray[np.float64], shape: ShapePrior) -> Mask:
    height, width = crop.shape[:2]
    y, x = np.mgrid[0:height, 0:width] + 0.5
    u = np.abs(2 * x - box[0] - box[2]) / max(box[2] - box[0], 1)
    v = np.abs(2 * y - box[1] - box[3]) / max(box[3] - box[1], 1)
    rounded = u**shape.power + v**shape.power < 0.95**shape.power
    if shape.core is None:
        return np.asarray(rounded, np.float32)
    guess = np.full((height, width), cv2.GC_BGD, np.uint8)
    guess[(u < 1) & (v < 1)] = cv2.GC_PR_BGD
    guess[rounded] = cv2.GC_PR_FGD
    guess[(u / shape.core[0]) ** 2 + (v / shape.core[1]) ** 2 < 1] = cv2.GC_FGD
    if not (guess == cv2.GC_BGD).any():  # a box as large as the frame leaves no surroundings to compare with
        return np.asarray(rounded, np.float32)
    cv2.setRNGSeed(0)  # GrabCut clusters colours from random seeds
    cv2.grabCut(crop, guess, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), ITERATIONS, cv2.GC_INIT_WITH_MASK)
    found = np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD))
    smooth = np.asarray(cv2.medianBlur(found.astype(np.uint8), 5), bool)
    if smooth.sum() < EMPTY * (box[2] - box[0]) * (box[3] - box[1]):
        smooth |= rounded
    return np.asarray(smooth, np.float32)
