"""A guess of what a detector's outputs mean, and the result format that it becomes with the user's hints and names."""

from dataclasses import dataclass, replace

from keywarp.engines.manifest import DenseDetection
from keywarp.importing.class_names import COCO, COCO_IDS, ClassNames
from keywarp.importing.errors import ImportingError
from keywarp.importing.keypoint_names import well_known_keypoints
from keywarp.importing.recognition.evidence import Evidence, shape_text
from keywarp.importing.result_format import BACKGROUND, RELATIVE, Background, DetectionLayout, ResultFormat

MOST_LISTED = 4  # outputs in a sentence
_UNITS = {"pixels": "in pixels", "normalised": "from 0 to 1", "cells": "in cells"}
_SCORES = {"none": "probabilities", "sigmoid": "logits of sigmoids", "softmax": "logits of a softmax"}
_BOXES = {
    "distances": "distances of the boxes' sides",
    "distributions": "distributed distances of the boxes' sides",
    "offsets": "offsets of boxes",
    "deltas": "boxes relative to anchors",
}


@dataclass(frozen=True)
class Guess:
    """A layout whose classes have no names yet."""

    layout: DetectionLayout  # whose `class_columns` still include the background
    maker: str  # what the file looks like, such as "an Ultralytics detector"
    background: Background = "none"  # of the scores' columns
    later: str = ""  # says which part of the result isn't used yet
    threshold: float = 0.25
    iou: float = 0.5


def result_format(guess: Guess, evidence: Evidence) -> ResultFormat:
    """Return the format of a guess, after what the hints say.

    Args:
        guess: The guess.
        evidence: The outputs, hints and metadata.

    Raises:
        ImportingError: If the hints contradict the outputs.
    """
    guess = _overridden(guess, evidence)
    columns, names = _classes(guess, evidence)
    layout = replace(guess.layout, class_columns=columns)
    for name, value in (("threshold", guess.threshold), ("iou", guess.iou)):
        if not 0 <= value <= 1:
            raise ImportingError(f"{name} must be from 0 to 1, got {value}")
    parts = [_scores_text(guess, len(columns)), _boxes_text(layout), *_extras_text(layout)]
    sentence = (
        f"looks like {guess.maker}: {', '.join(parts[:-1])}, and {parts[-1]}, from "
        f"{_outputs_text(layout, evidence)}; the classes are {names.origin}"
    )
    settings = DenseDetection(
        threshold=guess.threshold,
        iou=guess.iou,
        masks=layout.masks.kind if layout.masks else None,
        keypoints=well_known_keypoints(layout.keypoints.count) if layout.keypoints else None,
    )
    return ResultFormat(
        "detection", layout, (BACKGROUND, *names.names), sentence, later=guess.later, detection=settings
    )


def _overridden(guess: Guess, evidence: Evidence) -> Guess:
    """Replace what the hints say."""
    hints, layout = evidence.hints, guess.layout
    form, grid = hints.boxes or layout.form, layout.grid
    if form in RELATIVE and grid is None:
        found = evidence.grid(len(evidence.table(layout.boxes)))
        if found is None or found.per_cell > 1:
            raise ImportingError(f"boxes can't be {form}: their number isn't that of the cells of known strides")
        grid = found.grid
    if form == "distributions" and layout.boxes.count < 8:
        raise ImportingError(f"boxes of {layout.boxes.count} columns can't be distributions; choose another form")
    if form not in ("distributions", layout.form) and layout.boxes.count != 4:
        raise ImportingError(f"boxes of {layout.boxes.count} columns can't be {form}; they are distributions")
    units = hints.units or layout.units
    if units == "cells" and form not in RELATIVE:
        if hints.units:
            raise ImportingError(f"boxes of the form {form} can't be in cells; choose pixels or normalised")
        units = "pixels"
    layout = replace(layout, form=form, grid=grid, units=units, activation=hints.activation or layout.activation)
    return replace(
        guess,
        layout=layout,
        background=hints.background or guess.background,
        threshold=guess.threshold if hints.threshold is None else hints.threshold,
        iou=(1.0 if layout.selected else guess.iou) if hints.iou is None else hints.iou,
    )


def _classes(guess: Guess, evidence: Evidence) -> tuple[tuple[int, ...], ClassNames]:
    """Return the columns (or labels) of the classes without the background, and their names."""
    columns = guess.layout.class_columns
    if guess.background != "none":
        columns = columns[1:] if guess.background == "first" else columns[:-1]
    if not columns:
        raise ImportingError("the outputs have no class besides the background; say where the background is")
    if evidence.known_classes is None and len(columns) in (90, 91):  # category ids from 1 or from 0
        columns = tuple(columns[n - (len(columns) == 90)] for n in COCO_IDS)
        return columns, ClassNames(COCO, "COCO's 80, by their category ids")
    if evidence.known_classes == 80 and len(columns) in (90, 91):
        columns = tuple(columns[n - (len(columns) == 90)] for n in COCO_IDS)
    return columns, evidence.names(len(columns), background=guess.background != "none")


def _scores_text(guess: Guess, count: int) -> str:
    layout = guess.layout
    classes = "one class" if count == 1 else f"{count} classes"
    if layout.labels is not None:
        return f"scores and labels of {classes}"
    times = " times an objectness" if layout.objectness else ""
    background = "" if guess.background == "none" else f" with the background {guess.background}"
    return f"{_SCORES[layout.activation]} of {classes}{background}{times}"


def _boxes_text(layout: DetectionLayout) -> str:
    units = _UNITS[layout.units]
    return f"{_BOXES[layout.form]} {units}" if layout.form in RELATIVE else f"{layout.form} boxes {units}"


def _extras_text(layout: DetectionLayout) -> list[str]:
    """Return what objects have besides boxes and scores."""
    parts = []
    if layout.masks:
        origins = {"prototypes": "as sums of prototypes", "image": "of the image", "box": "of the boxes"}
        parts.append(f"masks {origins[layout.masks.kind]}")
    if layout.keypoints:
        parts.append(f"{layout.keypoints.count} keypoints")
    return parts


def _outputs_text(layout: DetectionLayout, evidence: Evidence) -> str:
    shapes = {o.name: shape_text(o.shape) for o in evidence.outputs}
    others = [layout.masks.tensor] if layout.masks else []
    others += layout.keypoints.points.tensors if layout.keypoints else []
    names = list(dict.fromkeys((*layout.boxes.tensors, *layout.scores.tensors, *others)))
    listed = ", ".join(f"{name} {shapes[name]}" for name in names[:MOST_LISTED])
    return f"{listed} ..." if len(names) > MOST_LISTED else listed
