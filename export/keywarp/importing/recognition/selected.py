"""Recognise objects that the file has selected itself: each has a box, a score and a label."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from keywarp.importing.class_names import COCO_IDS
from keywarp.importing.model_file import TensorSpec
from keywarp.importing.recognition.coordinates import are_ordered, tell_units
from keywarp.importing.recognition.evidence import MOST_OBJECTS, Evidence, are_integers, are_probabilities
from keywarp.importing.recognition.extras import output_extras, table_extras
from keywarp.importing.recognition.guesses import Guess
from keywarp.importing.result_format import Columns, DetectionLayout

COCO_COLUMNS = 91  # with the background
RT_DETR = "RTDETRDecoder"  # the head in Ultralytics' metadata
MOST_ANCESTORS = 2000  # nodes before the scores among which their activation is looked for


def guess_selected(evidence: Evidence) -> Guess | None:
    """Look for boxes (n, 4) or (1, n, 4), with a score and a label each in outputs of their own."""
    boxes = next((o for o in evidence.outputs if len(o.shape) in (2, 3) and o.shape[-1] in (4, 5)), None)
    if boxes is None:
        return None
    vectors = [o for o in evidence.outputs if o is not boxes and _is_vector(o) and not o.name.startswith("num")]
    labels = _first(vectors, lambda o: "label" in o.name or "class" in o.name) or _first(
        vectors, lambda o: o.dtype.kind in "iu"
    )
    others = [o for o in vectors if o is not labels and o.dtype.kind == "f"]
    scores = _first(others, lambda o: "score" in o.name or "conf" in o.name) or _first(others, lambda _: True)
    if labels is None or (scores is None and boxes.shape[-1] == 4):
        return None
    table = Columns((boxes.name,), "rows", boxes.shape[-1], 0, 4)
    label_column = Columns((labels.name,), "rows", 1)
    torchvision = boxes.name == "boxes" and len(boxes.shape) == 2
    tensorflow = boxes.name.startswith("detection_")
    classes = _labels(evidence, scores or boxes, evidence.table(label_column), torchvision or tensorflow)
    extras = output_extras(evidence, boxes)
    layout = DetectionLayout(
        table,
        "yxyx" if tensorflow else "xyxy",
        tell_units(evidence.table(table)),
        Columns((scores.name,), "rows", 1) if scores else replace(table, first=4, count=1),
        classes,
        labels=label_column,
        selected=True,
        masks=extras.masks,
        keypoints=extras.keypoints,
    )
    maker = "torchvision's detector" if torchvision else "TensorFlow's detector" if tensorflow else "a detector"
    return Guess(layout, f"{maker} that selects its objects itself", later=extras.later)


def guess_selected_table(evidence: Evidence) -> Guess | None:
    """Look for one output (n, 6) or (1, n, 6 or more) with a box, a score and a label in each row."""
    output = evidence.largest_table()
    if output is None or (len(output.shape) == 3 and output.shape[0] != 1):
        return None
    rows, width = output.shape[-2:]
    if width < 6 or rows > MOST_OBJECTS or evidence.is_map((rows, width)) or any(map(evidence.grid, (rows, width))):
        return None

    def columns(first: int, count: int = 1) -> Columns:
        return Columns((output.name,), "rows", width, first, count)

    values = evidence.table(columns(0, width))
    if width == 7:
        box, label, score, maker = 1, 5, 6, "YOLOv7 with its suppression in the graph"
    elif (
        width == 6
        and not evidence.ultralytics
        and len(values)
        and are_integers(values[:, 0])
        and are_probabilities(values[:, 1])
    ):
        box, label, score, maker = 2, 0, 1, "PaddleDetection's detector"
    else:
        box, label, score, maker = 0, 5, 4, "a YOLO that selects its objects itself"
    if not (are_integers(values[:, label]) and are_probabilities(values[:, score])) or (width > 7 and not len(values)):
        return None
    boxes = values[:, box : box + 4]
    rt_detr = evidence.model.metadata.get("head") == RT_DETR
    if rt_detr:
        maker = "Ultralytics' RT-DETR"
    extras = table_extras(evidence, output, columns(6, width - 6 if width > 7 else 0))
    layout = DetectionLayout(
        columns(box, 4),
        "cxcywh" if rt_detr or not are_ordered(boxes) else "xyxy",
        tell_units(boxes),
        columns(score),
        _labels(evidence, output, values[:, label], one_based=False),
        labels=columns(label),
        selected=True,
        masks=extras.masks,
        keypoints=extras.keypoints,
    )
    return Guess(layout, maker, later=extras.later)


def _labels(evidence: Evidence, scores: TensorSpec, found: NDArray[np.float32], one_based: bool) -> tuple[int, ...]:
    """Return the labels of the classes, in the order of their names."""
    known = evidence.known_classes
    count = _score_columns(evidence.model.model, scores.name)
    if one_based:
        if known is None:
            known = (count or COCO_COLUMNS) - 1
        return COCO_IDS if known == len(COCO_IDS) and count in (None, COCO_COLUMNS) else tuple(range(1, known + 1))
    return tuple(range(known or count or max(80, int(found.max(initial=0)) + 1)))


def _score_columns(model: onnx.ModelProto, scores: str) -> int | None:
    """Return the number of columns that the scores had before the best class of each box was chosen."""
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }
    producers = {name: node for node in model.graph.node for name in node.output}
    ahead, seen = [scores], {scores}
    while ahead and len(seen) < MOST_ANCESTORS:
        node = producers.get(ahead.pop(0))
        if node is None:
            continue
        shape = shapes.get(node.output[0], [])
        if node.op_type in ("Softmax", "Sigmoid") and 2 <= len(shape) <= 3 and shape[-1] > 1:
            return int(shape[-1])
        fresh = [name for name in node.input if name not in seen]
        seen.update(fresh)
        ahead.extend(fresh)
    return None


def _is_vector(output: TensorSpec) -> bool:
    shape = output.shape
    return len(shape) == 1 or (len(shape) == 2 and 1 in shape) or (len(shape) == 3 and shape[0] == shape[2] == 1)


def _first(outputs: Iterable[TensorSpec], condition: Callable[[TensorSpec], bool]) -> TensorSpec | None:
    return next((o for o in outputs if condition(o)), None)
