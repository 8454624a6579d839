"""Recognise one output with a row or a column per box: the box, perhaps an objectness, the scores."""

from dataclasses import replace
from typing import Literal

from keywarp.importing.recognition.coordinates import tell_coordinates
from keywarp.importing.recognition.evidence import MOST_OBJECTS, Evidence, GridRows, tell_sigmoid
from keywarp.importing.recognition.extras import extra_columns, table_extras
from keywarp.importing.recognition.guesses import Guess
from keywarp.importing.result_format import Columns, DetectionLayout

NANODET_BINS = (8, 11)  # of the distances, per side
PLUS_STRIDE = 64  # which NanoDet-Plus has besides the others; its cells' centres are at their corners


def guess_table(evidence: Evidence) -> Guess | None:
    """Look for an output (1, n, columns) or (1, columns, n)."""
    output = evidence.largest_table()
    if output is None:
        return None
    shape = output.shape[1:] if len(output.shape) > 2 and output.shape[0] == 1 else output.shape
    if len(shape) != 2 or min(shape) < 5 or evidence.is_map(shape):
        return None
    grids = [evidence.grid(n) for n in shape]
    rows_first = grids[0] is not None if any(grids) else shape[0] > shape[1]
    found = grids[0] if rows_first else grids[1]
    width = shape[1] if rows_first else shape[0]
    arrangement: Literal["rows", "columns"] = "rows" if rows_first else "columns"
    extra = extra_columns(evidence, output, width)

    def columns(first: int, count: int) -> Columns:
        return Columns((output.name,), arrangement, width, first, count)

    if found and rows_first and (bins := _bins(evidence, width)):
        classes = width - 4 * bins
        scores = columns(0, classes)
        grid = replace(found.grid, shift=0.0 if PLUS_STRIDE in found.grid.strides else 0.5)
        layout = DetectionLayout(
            columns(classes, 4 * bins),
            "distributions",
            "cells",
            scores,
            tuple(range(classes)),
            tell_sigmoid(evidence.table(scores)),
            grid=grid,
        )
        return Guess(layout, "NanoDet")
    classes, objectness = _classes(evidence, width - extra, rows_first, found)
    if classes < 1:
        return None
    box, scores = columns(0, 4), columns(4 + int(objectness), classes)
    form, units = tell_coordinates(evidence.table(box), found if found and found.per_cell == 1 else None, evidence)
    raw = found is not None and form in ("distances", "offsets")
    if raw and objectness:
        form = "offsets"  # YOLOX's
    layout = DetectionLayout(
        box,
        form,
        units,
        scores,
        tuple(range(classes)),
        tell_sigmoid(evidence.table(scores)),
        columns(4, 1) if objectness else None,
        grid=replace(found.grid, shift=0.0 if form == "offsets" else 0.5) if found and raw else None,
        selected=max(shape) <= MOST_OBJECTS and not any(grids),
    )
    extras = table_extras(evidence, output, columns(width - extra, extra))
    return Guess(
        replace(layout, masks=extras.masks, keypoints=extras.keypoints),
        _maker(evidence, layout, found.per_cell if found else 1),
        later=extras.later,
        iou=0.7 if evidence.ultralytics else 0.5,
    )


def _maker(evidence: Evidence, layout: DetectionLayout, per_cell: int) -> str:
    if evidence.ultralytics:
        return "an Ultralytics detector"
    if layout.objectness:
        return "YOLOv5 or YOLOv7" if per_cell > 1 else "YOLOX"
    return "a set of objects" if layout.selected else "a detector of the kind of YOLOv8"


def _bins(evidence: Evidence, width: int) -> int:
    """Return the bins of distances if a table of so many columns is NanoDet's, else 0."""
    known = evidence.known_classes
    return next((bins for bins in NANODET_BINS if width - 4 * bins == (known or 80)), 0)


def _classes(evidence: Evidence, width: int, rows_first: bool, found: GridRows | None) -> tuple[int, bool]:
    """Return the number of classes among so many columns, and whether there is an objectness."""
    known = evidence.known_classes
    if known is not None and width - known in (4, 5):
        return known, width - known == 5
    if width in (84, 85):
        return 80, width == 85
    objectness = found is not None and (found.per_cell == 3 or rows_first)
    return width - 4 - int(objectness), objectness
