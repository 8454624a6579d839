"""Recognise one output of boxes and one of scores."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from keywarp.importing.model_file import TensorSpec
from keywarp.importing.recognition.anchors import torchvision_anchors
from keywarp.importing.recognition.coordinates import tell_coordinates
from keywarp.importing.recognition.evidence import MOST_OBJECTS, Evidence, GridRows, are_probabilities, sum_to_one
from keywarp.importing.recognition.extras import output_extras
from keywarp.importing.recognition.guesses import Guess
from keywarp.importing.result_format import (
    RELATIVE,
    Activation,
    Background,
    BoxForm,
    Columns,
    DetectionLayout,
    Grid,
    Units,
)

DETR = 92  # COCO's category ids from 0 to 90, and "no object"
SIGMOIDS = (80, 91)  # COCO's classes, or its category ids
RF_DETR = ("dets", "labels")  # names of its outputs


def guess_pair(evidence: Evidence) -> Guess | None:
    """Look for boxes (1, n, 4) and scores (1, n, columns)."""
    found = _boxes_and_scores(evidence)
    if found is None:
        return None
    boxes, scores = found
    rows, width = scores.shape[-2:]
    table, columns = Columns((boxes.name,), "rows", 4, 0, 4), Columns((scores.name,), "rows", width, 0, width)
    cells = evidence.grid(rows)
    is_set = rows <= MOST_OBJECTS and cells is None
    rf_detr = (boxes.name, scores.name) == RF_DETR
    activation, background = _scores(evidence, evidence.table(columns), is_set, rf_detr)
    form: BoxForm
    units: Units
    if is_set and (rf_detr or boxes.name.startswith("pred_boxes")):
        form, units = "cxcywh", "normalised"
    elif cells is not None and evidence.hints.boxes in RELATIVE:
        form, units = evidence.hints.boxes, "cells"
    else:
        form, units = tell_coordinates(evidence.table(table), cells, evidence)
    extras = output_extras(evidence, boxes)
    objectness = next((o for o in evidence.outputs if o.shape == (*scores.shape[:-1], 1)), None)
    layout = DetectionLayout(
        table,
        form,
        units,
        columns,
        tuple(range(width)),
        activation,
        Columns((objectness.name,), "rows", 1) if objectness else None,
        geometric=objectness is not None and form == "distances",
        grid=_grid(cells, form),
        selected=is_set,
        masks=extras.masks,
        keypoints=extras.keypoints,
    )
    return Guess(layout, _maker(layout, rf_detr), background, extras.later, threshold=0.3 if is_set else 0.25)


def _grid(cells: GridRows | None, form: BoxForm) -> Grid | None:
    """Return the grid of relative boxes: torchvision's, whose cells' centres are at their corners."""
    if cells is None or form not in RELATIVE:
        return None
    grid = replace(cells.grid, shift=0.0)
    return replace(grid, anchors=torchvision_anchors(grid)) if form == "deltas" else grid


def _maker(layout: DetectionLayout, rf_detr: bool) -> str:
    if rf_detr:
        return "RF-DETR"
    if layout.form == "deltas":
        return "torchvision's RetinaNet without its suppression"
    if layout.form == "distances":
        return "FCOS without its suppression"
    if not layout.selected:
        return "a detector with boxes and scores"
    kinds = {"softmax": "DETR", "sigmoid": "RT-DETR, D-FINE or Deformable DETR", "none": "a kin of DETR"}
    return kinds[layout.activation]


def _boxes_and_scores(evidence: Evidence) -> tuple[TensorSpec, TensorSpec] | None:
    """Return the boxes and scores of the model's last layer; auxiliary ones come after it."""
    tables = [o for o in evidence.outputs if len(o.shape) in (2, 3) and o.dtype.kind == "f"]
    for boxes in tables:
        for scores in tables:
            fit = scores is not boxes and scores.shape[:-1] == boxes.shape[:-1]
            if fit and boxes.shape[-1] == 4 and (scores.shape[-1] > 1 or "score" in scores.name):
                return boxes, scores
    return None


def _scores(
    evidence: Evidence, values: NDArray[np.float32], is_set: bool, rf_detr: bool
) -> tuple[Activation, Background]:
    """Tell by counts and values what is to be applied to scores (n, columns), and where their background is."""
    known, width = evidence.known_classes, values.shape[1]
    if are_probabilities(values):
        if width == 1 or not sum_to_one(values, axis=1) or (known == width and not is_set):
            return "none", "none"
        return "none", "last" if is_set or values[:, -1].mean() > values[:, 0].mean() else "first"
    if known == width or rf_detr:
        return "sigmoid", "none"
    if known == width - 1 or (is_set and width == DETR):
        return "softmax", "last" if is_set else "first"
    if is_set and width in SIGMOIDS:
        return "sigmoid", "none"
    chances = np.exp(values - values.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    first, last = float(np.median(chances[:, 0])), float(np.median(chances[:, -1]))
    if max(first, last) > 0.5:
        return "softmax", "last" if last > first else "first"
    return "sigmoid", "none"
