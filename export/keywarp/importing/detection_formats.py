"""Recognise a detector's outputs.

=============  ====================================================================================================
selected       boxes, scores and labels of objects, which a suppression or a set's last step has left (torchvision,
               RT-DETR as it is deployed, mmdeploy, YOLO with the suppression in the graph, YOLOv10 and YOLO26)
table          one output with a row or column per box (YOLO, NanoDet)
pair           one output of boxes and one of scores (DETR and its kin, SSD, YOLO-NAS)
levels         outputs for each stride (raw heads)
=============  ====================================================================================================
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.manifest import DenseDetection
from keywarp.importing.class_names import COCO, COCO_IDS
from keywarp.importing.evidence import MOST_OBJECTS, Evidence, are_integers, are_probabilities, shape_text, sum_to_one
from keywarp.importing.model_file import TensorSpec
from keywarp.importing.result_format import (
    BACKGROUND,
    Activation,
    Background,
    BoxForm,
    Columns,
    DetectionLayout,
    Grid,
    ResultFormat,
    Units,
)

ORDERED = 0.98  # share of rows with x1 <= x2 and y1 <= y2, from which on they are taken for corners
ALIKE = 0.7  # correlation of columns with the cells' centres, from which on they are taken for coordinates
NANODET_BINS = (8, 11)  # per side
DFL_BINS = 16  # per side, in YOLOv8 and later
PROTOTYPES = 32
RETINA_SIZES = tuple(4 * 2 ** (n / 3) for n in range(3))  # of a stride
RETINA_RATIOS = (0.5, 1.0, 2.0)  # height / width


@dataclass(frozen=True)
class _Guess:
    """A layout whose classes have no names yet."""

    layout: DetectionLayout
    maker: str  # what the file looks like: "an Ultralytics detector"
    background: Background = "none"  # of the scores' columns
    later: str = ""
    names: tuple[str, ...] = ()  # of the classes, if the form itself says them
    threshold: float = 0.25
    iou: float = 0.5


def recognise_detection(evidence: Evidence) -> ResultFormat | None:
    """Return what the outputs mean if they look like a detector's.

    Args:
        evidence: The outputs.
    """
    recognisers: tuple[Callable[[Evidence], _Guess | None], ...] = (_selected, _selected_table, _pair, _table, _levels)
    guess = next((g for recogniser in recognisers if (g := recogniser(evidence))), None)
    return _named(_overridden(guess, evidence), evidence) if guess else None


# ---- objects that are already selected


def _selected(evidence: Evidence) -> _Guess | None:
    """Boxes (n, 4) or (1, n, 4), with a score and a label each in outputs of their own."""
    boxes = next((o for o in evidence.outputs if len(o.shape) in (2, 3) and o.shape[-1] in (4, 5)), None)
    if boxes is None:
        return None
    vectors = [o for o in evidence.outputs if o is not boxes and _is_vector(o)]
    labels = _first(vectors, lambda o: "label" in o.name or "class" in o.name) or _first(
        vectors, lambda o: o.dtype.kind in "iu" and "num" not in o.name
    )
    scores = _first(vectors, lambda o: "score" in o.name or "conf" in o.name) or _first(
        vectors, lambda o: o is not labels and o.dtype.kind == "f"
    )
    if labels is None or (scores is None and boxes.shape[-1] == 4):
        return None
    table = Columns((boxes.name,), "rows", boxes.shape[-1], 0, 4)
    values = evidence.table(table)
    units: Units = "normalised" if values.size and np.abs(values).max() <= 2 else "pixels"
    torchvision = boxes.name == "boxes" and len(boxes.shape) == 2
    tensorflow = boxes.name.startswith("detection_")
    column = Columns((scores.name,), "rows", 1) if scores else replace(table, first=4, count=1)
    found = evidence.table(Columns((labels.name,), "rows", 1))
    one_based = torchvision or tensorflow
    classes, names = _label_classes(evidence, found, one_based)
    maker = "torchvision's detector" if torchvision else "TensorFlow's detector" if tensorflow else "a detector"
    layout = DetectionLayout(
        table,
        "yxyx" if tensorflow else "xyxy",
        units,
        column,
        classes,
        labels=Columns((labels.name,), "rows", 1),
        selected=True,
    )
    return _Guess(layout, f"{maker} that selects its objects itself", names=names)


def _selected_table(evidence: Evidence) -> _Guess | None:
    """One output with a box, a score and a label in each row."""
    output = _largest(evidence)
    if output is None or len(output.shape) not in (2, 3) or (len(output.shape) == 3 and output.shape[0] != 1):
        return None
    rows, width = output.shape[-2:]
    if width < 6 or rows > MOST_OBJECTS or evidence.grid(rows) or evidence.grid(width):
        return None
    values = evidence.table(Columns((output.name,), "rows", width, 0, width))
    if width == 7:
        box, label, score, maker = 1, 5, 6, "YOLOv7 with its suppression in the graph"
    elif width == 6 and len(values) and are_integers(values[:, 0]) and are_probabilities(values[:, 1]):
        box, label, score, maker = 2, 0, 1, "PaddleDetection's detector"
    else:
        box, label, score, maker = 0, 5, 4, "a YOLO that selects its objects itself (v10, 26, or with suppression)"
    if not (are_integers(values[:, label]) and are_probabilities(values[:, score])):
        return None
    if width > 7 and not len(values):
        return None
    columns = [
        Columns((output.name,), "rows", width, first, count) for first, count in ((box, 4), (score, 1), (label, 1))
    ]
    units: Units = "normalised" if len(values) and np.abs(values[:, box : box + 4]).max() <= 2 else "pixels"
    classes, names = _label_classes(evidence, values[:, label], one_based=False)
    layout = DetectionLayout(columns[0], "xyxy", units, columns[1], classes, labels=columns[2], selected=True)
    return _Guess(layout, maker, names=names, later=_later(evidence, width - 6 if width > 7 else 0))


def _label_classes(
    evidence: Evidence, labels: NDArray[np.float32], one_based: bool
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the labels of the classes, and the classes' names if it's the labels that tell them."""
    known = evidence.known_classes
    if known:
        return tuple(range(int(one_based), known + int(one_based))), ()
    if one_based:
        return COCO_IDS, COCO
    highest = int(labels.max(initial=0))
    return tuple(range(max(80, highest + 1))), ()


# ---- one output


def _table(evidence: Evidence) -> _Guess | None:
    """One output with a row or a column per box: box, perhaps objectness, scores."""
    output = _largest(evidence)
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
    extra = _extra(evidence, output, width)
    classes, objectness, bins = _split(evidence, output, width - extra, rows_first, found.per_cell if found else 1)
    if classes < 1:
        return None

    def columns(first: int, count: int) -> Columns:
        return Columns((output.name,), arrangement, width, first, count)

    grid: Grid | None
    form: BoxForm
    units: Units
    if bins:
        scores, box = columns(0, classes), columns(classes, 4 * bins)
        form, units = "distributions", "cells"
        assert found is not None
        # NanoDet-Plus has cells of stride 64 as well, and their centres at their corners
        grid = replace(found.grid, shift=0.0 if 64 in found.grid.strides else 0.5)
    else:
        box, scores = columns(0, 4), columns(4 + int(objectness), classes)
        form, units = _coordinates(evidence.table(box), found.grid if found else None, evidence)
        grid = Grid(found.grid.strides, shift=0.0) if found and form == "offsets" else None
        if form != "offsets":
            found = None
    values = evidence.table(scores)
    activation: Activation = "none" if are_probabilities(values) else "sigmoid"
    layout = DetectionLayout(
        box,
        form,
        units,
        scores,
        tuple(range(classes)),
        activation,
        columns(4, 1) if objectness else None,
        grid=grid,
        selected=max(shape) <= MOST_OBJECTS and not any(grids),
    )
    if evidence.ultralytics:
        maker = "an Ultralytics detector"
    elif bins:
        maker = "NanoDet"
    elif objectness:
        maker = "YOLOX" if rows_first and form == "offsets" else "YOLOv5, YOLOv7 or YOLOX"
    else:
        maker = "a YOLOv8-like detector" if not layout.selected else "a set of objects"
    return _Guess(layout, maker, later=_later(evidence, extra), iou=0.5 if not evidence.ultralytics else 0.7)


def _extra(evidence: Evidence, output: TensorSpec, width: int) -> int:
    """Return the number of columns behind the scores: coefficients of masks, keypoints or an angle."""
    task = evidence.model.metadata.get("task", "")
    known = evidence.known_classes
    if task == "pose" and known:
        return max(0, width - 4 - known)
    if task == "obb":
        return 1
    prototypes = [o.shape[1] for o in evidence.outputs if o is not output and len(o.shape) == 4]
    if prototypes and prototypes[0] == PROTOTYPES and width > PROTOTYPES + 4:
        return PROTOTYPES
    return 51 if width == 56 and not known else 0  # one class and COCO's 17 keypoints


def _split(
    evidence: Evidence, output: TensorSpec, width: int, rows_first: bool, per_cell: int
) -> tuple[int, bool, int]:
    """Return the number of classes, whether there is an objectness, and the bins of distributed distances."""
    known = evidence.known_classes
    for objectness in (False, True):
        if known is not None and width == known + 4 + int(objectness):
            return known, objectness, 0
    for bins in NANODET_BINS:
        if width - 4 * bins in (known, 80) and rows_first:
            return width - 4 * bins, False, bins
    if width in (84, 85):
        return 80, width == 85, 0
    grid = evidence.grid(output.shape[-2] if rows_first else output.shape[-1])
    objectness = per_cell == 3 or (rows_first and grid is not None)
    return width - 4 - int(objectness), objectness, 0


def _coordinates(boxes: NDArray[np.float32], grid: Grid | None, evidence: Evidence) -> tuple[BoxForm, Units]:
    """Tell form and units of boxes by their values."""
    height, width = evidence.model.height, evidence.model.width
    if not len(boxes):
        return "xyxy", "pixels"
    if grid is not None and len(boxes) == grid.count(height, width):
        centres, _, _ = grid.rows(height, width)
        x = [_correlation(boxes[:, n], centres[:, 0]) for n in (0, 2)]
        if max(x) < ALIKE:
            nonnegative = float((boxes >= 0).mean()) > ORDERED
            return ("distances", "cells") if nonnegative else ("offsets", "cells")
        form: BoxForm = "xyxy" if min(x) > ALIKE and _ordered(boxes) else "cxcywh"
    else:
        form = "xyxy" if _ordered(boxes) else "cxcywh"
    return form, "normalised" if np.abs(boxes).max() <= 2 else "pixels"


def _ordered(boxes: NDArray[np.float32]) -> bool:
    return float((boxes[:, 2:] >= boxes[:, :2]).all(axis=1).mean()) >= ORDERED


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0


# ---- boxes and scores


def _pair(evidence: Evidence) -> _Guess | None:
    """Boxes (1, n, 4) and scores (1, n, columns)."""
    found = _boxes_and_scores(evidence)
    if found is None:
        return None
    boxes, scores = found
    rows, width = scores.shape[-2:]
    table, columns = Columns((boxes.name,), "rows", 4, 0, 4), Columns((scores.name,), "rows", width, 0, width)
    grid = evidence.grid(rows)
    is_set = rows <= MOST_OBJECTS and grid is None
    values = evidence.table(columns)
    activation, background = _score_columns(evidence, values, width, is_set, scores.name)
    form: BoxForm
    units: Units
    if is_set and "box" in boxes.name.lower() and boxes.name.startswith("pred"):
        form, units = "cxcywh", "normalised"
    else:
        form, units = _coordinates(evidence.table(table), grid.grid if grid else None, evidence)
    if boxes.name == "dets" and is_set:
        form, units = "cxcywh", "normalised"
    relative = grid is not None and form in ("distances", "offsets")
    layout = DetectionLayout(
        table,
        form,
        units,
        columns,
        tuple(range(width)),
        activation,
        grid=grid.grid if grid and relative else None,
        selected=is_set,
    )
    maker = "DETR or a kin of it (a set of objects)" if is_set else "a detector with boxes and scores"
    if boxes.name == "dets":
        maker = "RF-DETR"
    elif is_set and activation == "softmax":
        maker = "DETR"
    elif is_set and activation == "sigmoid":
        maker = "RT-DETR, D-FINE or Deformable DETR"
    masks = any("mask" in o.name and len(o.shape) == 4 for o in evidence.outputs)
    later = "its masks come in a later version: only the boxes are used" if masks else ""
    return _Guess(layout, maker, background, later, threshold=0.3)


def _boxes_and_scores(evidence: Evidence) -> tuple[TensorSpec, TensorSpec] | None:
    """Return the boxes and scores of the model's last layer; auxiliary ones come after it."""
    tables = [o for o in evidence.outputs if len(o.shape) in (2, 3) and o.dtype.kind == "f"]
    for boxes in tables:
        if boxes.shape[-1] != 4:
            continue
        for scores in tables:
            if scores is not boxes and scores.shape[:-1] == boxes.shape[:-1]:
                return boxes, scores
    return None


def _score_columns(
    evidence: Evidence, values: NDArray[np.float32], width: int, is_set: bool, name: str
) -> tuple[Activation, Background]:
    """Tell by names, counts and values what is to be applied to scores, and where their background is."""
    known = evidence.known_classes
    if are_probabilities(values):
        if not sum_to_one(values, axis=1) or (known == width and not is_set):
            return "none", "none"
        return "none", "last" if is_set or values[:, -1].mean() > values[:, 0].mean() else "first"
    if known == width:
        return "sigmoid", "none"
    if known == width - 1 or (is_set and width == 92):
        return "softmax", "last" if is_set else "first"
    if (is_set and width in (80, 91)) or name == "labels":
        return "sigmoid", "none"
    chances = np.exp(values - values.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    first, last = float(np.median(chances[:, 0])), float(np.median(chances[:, -1]))
    if max(first, last) > 0.5:
        return "softmax", "last" if last > first else "first"
    return "sigmoid", "none"


# ---- outputs per level


def _levels(evidence: Evidence) -> _Guess | None:
    """Maps or tables per stride, for boxes, scores and perhaps objectness."""
    maps = [o for o in evidence.outputs if len(o.shape) == 4 and o.shape[0] == 1 and o.dtype.kind == "f"]
    sizes = sorted({o.shape[2:] for o in maps}, key=lambda size: -size[0] * size[1])
    height, width = evidence.model.height, evidence.model.width
    strides = tuple(round(height / rows) for rows, _ in sizes)
    if len(sizes) < 2 or any((-(-height // s), -(-width // s)) != size for s, size in zip(strides, sizes, strict=True)):
        return None
    levels = [[o for o in maps if o.shape[2:] == size] for size in sizes]
    kinds = [tuple(o.shape[1] for o in level) for level in levels]
    if any(sorted(kind) != sorted(kinds[0]) for kind in kinds):
        return None
    known = evidence.known_classes

    def columns(channels: int, first: int, count: int, per_cell: int = 1, rank: int = 0) -> Columns:
        """Return the columns of the maps that have so many channels; the rank tells equal ones apart."""
        names = tuple([o.name for o in level if o.shape[1] == channels * per_cell][rank] for level in levels)
        return Columns(names, "columns", channels, first, count, per_cell)

    kind = sorted(kinds[0])
    grid = Grid(strides)
    if len(kind) == 1:
        return _joint_levels(evidence, columns, kind[0], grid)
    if len(kind) == 3 and kind[:2] == [1, 4]:
        box, scores, objectness = columns(4, 0, 4), columns(kind[2], 0, kind[2]), columns(1, 0, 1)
        activation: Activation = "none" if are_probabilities(evidence.table(scores)) else "sigmoid"
        positive = float((evidence.table(box) >= 0).mean()) > ORDERED
        form: BoxForm = "distances" if positive else "offsets"
        grid = replace(grid, shift=0.5 if positive else 0.0)
        layout = DetectionLayout(box, form, "cells", scores, tuple(range(kind[2])), activation, objectness, grid=grid)
        return _Guess(layout, "FCOS, with its outputs per level" if positive else "YOLOX, with its outputs per level")
    if len(kind) != 2:
        return None
    return _boxes_and_scores_per_level(evidence, columns, (kinds[0][0], kinds[0][1]), grid, known)


def _joint_levels(evidence: Evidence, columns: Callable[..., Columns], channels: int, grid: Grid) -> _Guess | None:
    """One map per level, with boxes and scores."""
    known = evidence.known_classes
    if channels in ((known or 80) + 4 * DFL_BINS, 80 + 4 * DFL_BINS):
        classes = channels - 4 * DFL_BINS
        box, scores = columns(channels, 0, 4 * DFL_BINS), columns(channels, 4 * DFL_BINS, classes)
        layout = DetectionLayout(
            box, "distributions", "cells", scores, tuple(range(classes)), _sigmoid(evidence, scores), grid=grid
        )
        return _Guess(layout, "YOLOv8 or later, with its outputs per level", iou=0.7)
    if channels in ((known or 80) + 5, 85):
        box, scores = columns(channels, 0, 4), columns(channels, 5, channels - 5)
        layout = DetectionLayout(
            box,
            "offsets",
            "cells",
            scores,
            tuple(range(channels - 5)),
            _sigmoid(evidence, scores),
            columns(channels, 4, 1),
            grid=replace(grid, shift=0.0),
        )
        return _Guess(layout, "YOLOX, with its outputs per level")
    return None


def _boxes_and_scores_per_level(
    evidence: Evidence, columns: Callable[..., Columns], kind: tuple[int, int], grid: Grid, known: int | None
) -> _Guess | None:
    """Two maps per level: scores and boxes."""
    for box_channels, score_channels in (sorted(kind), sorted(kind, reverse=True)):
        for per_cell in (9, 6, 3, 1):
            classes = score_channels // per_cell
            if (
                box_channels == 4 * per_cell
                and score_channels % per_cell == 0
                and classes in (known or classes, 80, 91)
            ):
                break
        else:
            continue
        break
    else:
        return _distributions_per_level(evidence, columns, kind, grid, known)
    scores, box = columns(classes, 0, classes, per_cell), columns(4, 0, 4, per_cell)
    if per_cell == 9:
        shapes = [
            (s * size / r**0.5, s * size * r**0.5) for s in grid.strides for size in RETINA_SIZES for r in RETINA_RATIOS
        ]
        anchors = tuple(tuple(shapes[9 * n : 9 * n + 9]) for n in range(len(grid.strides)))
        layout = DetectionLayout(
            box,
            "deltas",
            "cells",
            scores,
            tuple(range(classes)),
            _sigmoid(evidence, scores),
            grid=replace(grid, anchors=anchors),
        )
        return _Guess(layout, "RetinaNet, with its outputs per level and the paper's anchors")
    if per_cell != 1:
        return None
    layout = DetectionLayout(
        box, "distances", "cells", scores, tuple(range(classes)), _sigmoid(evidence, scores), grid=grid
    )
    return _Guess(layout, "an anchor-free detector with its outputs per level")


def _distributions_per_level(
    evidence: Evidence, columns: Callable[..., Columns], kind: tuple[int, int], grid: Grid, known: int | None
) -> _Guess | None:
    for bins in (DFL_BINS, *NANODET_BINS):
        if 4 * bins not in kind:
            continue
        classes = kind[1] if kind[0] == 4 * bins else kind[0]
        if known not in (None, classes):
            continue
        scores, box = columns(classes, 0, classes), columns(4 * bins, 0, 4 * bins)
        layout = DetectionLayout(
            box, "distributions", "cells", scores, tuple(range(classes)), _sigmoid(evidence, scores), grid=grid
        )
        return _Guess(layout, "a detector with distributed distances, per level")
    return None


def _sigmoid(evidence: Evidence, scores: Columns) -> Activation:
    return "none" if are_probabilities(evidence.table(scores)) else "sigmoid"


# ---- hints and names


def _overridden(guess: _Guess, evidence: Evidence) -> _Guess:
    """Replace what the hints say."""
    hints, layout = evidence.hints, guess.layout
    if hints.boxes is not None and hints.boxes != layout.form:
        grid = layout.grid
        if hints.boxes in ("distances", "distributions", "offsets", "deltas") and grid is None:
            rows = len(evidence.table(layout.boxes))
            found = evidence.grid(rows)
            grid = found.grid if found and found.per_cell == 1 else None
        layout = replace(layout, form=hints.boxes, grid=grid)
    if hints.units is not None:
        layout = replace(layout, units=hints.units)
    if hints.activation is not None:
        layout = replace(layout, activation=hints.activation)
    return replace(
        guess,
        layout=layout,
        background=hints.background or guess.background,
        threshold=guess.threshold if hints.threshold is None else hints.threshold,
        iou=guess.iou if hints.iou is None else hints.iou,
    )


def _named(guess: _Guess, evidence: Evidence) -> ResultFormat:
    """Choose the columns of the classes, and name them."""
    layout = guess.layout
    columns = layout.class_columns
    if guess.background == "first":
        columns = columns[1:]
    elif guess.background == "last":
        columns = columns[:-1]
    names, origin = guess.names, "COCO's 80, by their category ids"
    if not names and len(columns) == 91 and evidence.known_classes is None:
        columns, names = tuple(columns[0] + n for n in COCO_IDS), COCO
    elif not names and len(columns) == 90 and evidence.known_classes is None:
        columns, names = tuple(columns[0] + n - 1 for n in COCO_IDS), COCO
    elif not names:
        found = evidence.names(len(columns), background=guess.background != "none")
        names, origin = found.names, found.origin
    elif evidence.hints.class_names:
        found = evidence.names(len(columns))
        names, origin = found.names, found.origin
    layout = replace(layout, class_columns=columns)
    shapes = {o.name: shape_text(o.shape) for o in evidence.model.outputs}
    outputs = _unique((*layout.boxes.tensors, *layout.scores.tensors))
    listed = ", ".join(f"{name} {shapes[name]}" for name in outputs[:4]) + (" ..." if len(outputs) > 4 else "")
    guess_text = (
        f"looks like {guess.maker}: {len(columns)} {_scores_text(guess)} and {layout.form} boxes in "
        f"{layout.units}, from {listed}; the classes are {origin}"
    )
    iou = 1.0 if layout.selected and evidence.hints.iou is None else guess.iou
    DenseDetection(threshold=guess.threshold, iou=iou)  # checks the values
    return ResultFormat(
        "detection",
        layout,
        (BACKGROUND, *names),
        guess_text,
        later=guess.later,
        threshold=guess.threshold,
        iou=iou,
    )


def _scores_text(guess: _Guess) -> str:
    layout = guess.layout
    if layout.labels is not None:
        return "classes"
    kind = {"none": "probabilities", "sigmoid": "sigmoid logits", "softmax": "softmax logits"}[layout.activation]
    times = " times an objectness" if layout.objectness else ""
    background = "" if guess.background == "none" else f" with the background {guess.background}"
    return kind + times + background


def _later(evidence: Evidence, extra: int) -> str:
    """Say what the columns behind the scores are, which aren't used yet."""
    task = evidence.model.metadata.get("task", "")
    masks = any(len(o.shape) == 4 for o in evidence.outputs)
    if not extra:
        return ""
    what = {"pose": "keypoints", "obb": "rotation", "segment": "masks"}.get(task)
    if what is None:
        what = "masks" if masks else "keypoints" if extra % 3 == 0 else "further columns"
    return f"its {what} come in a later version: only the boxes are used"


def _largest(evidence: Evidence) -> TensorSpec | None:
    """Return the only table among the outputs, or the largest."""
    tables = [o for o in evidence.outputs if len(o.shape) in (2, 3) and o.dtype.kind == "f"]
    return max(tables, key=lambda o: int(np.prod(o.shape)), default=None)


def _is_vector(output: TensorSpec) -> bool:
    return (
        len(output.shape) == 1
        or (len(output.shape) == 2 and output.shape[0] == 1)
        or (len(output.shape) == 3 and output.shape[0] == output.shape[-1] == 1)
    )


def _first(outputs: Iterable[TensorSpec], condition: Callable[[TensorSpec], bool]) -> TensorSpec | None:
    return next((o for o in outputs if condition(o)), None)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
