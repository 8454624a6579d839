"""Masks of objects from a detector's boxes.

GrabCut separates the box's content from its surroundings by colour, starting from a shape that fits the class. Bicycles
consist mostly of holes, so that the rounded box itself is their mask.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.classes import Color
from keywarp.datasets.detector import TeacherDetection
from keywarp.datasets.types import Image

Mask = npt.NDArray[np.float32]  # (H, W), 0..1

MARGIN = 0.25  # fraction of the box's sides that GrabCut sees of its surroundings
WORKING_SIDE = 160  # pixels: larger crops are shrunk to this
SMALLEST_SIDE = 64  # pixels: smaller crops are enlarged towards this, at most by 2
ITERATIONS = 4
EMPTY = 0.25  # fraction of the box's area below which GrabCut's result is considered a failure


@dataclass(frozen=True)
class ShapePrior:
    """The expected shape of a class's objects inside their boxes. Ellipses are in units of half the box's sides."""

    power: float  # exponent of the super-ellipse that probably holds the object: 2 is round, 4 nearly a rectangle
    core: tuple[float, float] | None  # half axes of the ellipse that is certainly object; None to keep the rounded box


@dataclass(frozen=True)
class TeacherClass:
    """A class of the task and the teacher's categories that it consists of."""

    name: str
    color: Color
    categories: tuple[int, ...]  # the teacher's categories; empty for the background
    shape: ShapePrior


def evidence(
    frame: Image, detections: list[TeacherDetection], classes: tuple[TeacherClass, ...]
) -> npt.NDArray[np.float32]:
    """Compute each pixel's evidence for each class: the score of the highest-scoring object there.

    Args:
        frame: The frame, (H, W, 3) RGB.
        detections: The teacher's detections on the frame.
        classes: All classes. Index 0 is the background.

    Returns:
        (len(classes) - 1, H, W), 0..1: one map for each class but the background.
    """
    maps = np.zeros((len(classes) - 1, *frame.shape[:2]), np.float32)
    for detection in detections:
        for row, class_ in zip(maps, classes[1:], strict=True):
            if detection.category in class_.categories:
                np.maximum(row, detection.score * cut_out(frame, detection.box, class_.shape), out=row)
    return maps


def cut_out(frame: Image, box: tuple[float, float, float, float], shape: ShapePrior) -> Mask:
    """Return the object's mask in the whole frame, with soft edges."""
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
