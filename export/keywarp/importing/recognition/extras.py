"""What objects have besides boxes: masks, keypoints, and rotations, which aren't used yet."""

import ast
from dataclasses import dataclass, replace

import numpy as np

from keywarp.importing.decoding.box_masks import find_box_masks
from keywarp.importing.model_file import TensorSpec
from keywarp.importing.recognition.evidence import Evidence, are_probabilities
from keywarp.importing.result_format import Columns, KeypointsLayout, MasksLayout

PROTOTYPES = 32  # masks that the masks of YOLO's objects are sums of
POSE = 51  # columns of COCO's 17 keypoints
_LATER = "its {} come in a later version: only the boxes are used"


@dataclass(frozen=True)
class Extras:
    """What was found besides boxes and scores."""

    masks: MasksLayout | None = None
    keypoints: KeypointsLayout | None = None
    later: str = ""  # a sentence that says what isn't used; nothing if all of it is


def extra_columns(evidence: Evidence, output: TensorSpec, width: int) -> int:
    """Return the number of columns behind a table's scores: coefficients of masks, keypoints or an angle.

    Args:
        evidence: The outputs.
        output: The table.
        width: Its columns.
    """
    task = evidence.model.metadata.get("task", "")
    known = evidence.known_classes
    if task in ("pose", "segment") and known:
        return max(0, width - 4 - known)
    if task == "obb":
        return 1
    if _prototypes(evidence, output, PROTOTYPES) and width > PROTOTYPES + 4:
        return PROTOTYPES
    return POSE if width == 4 + 1 + POSE and not known else 0


def table_extras(evidence: Evidence, output: TensorSpec, columns: Columns) -> Extras:
    """Return what the columns behind a table's scores are.

    Args:
        evidence: The outputs.
        output: The table.
        columns: The columns, perhaps none.
    """
    if columns.count == 0:
        return output_extras(evidence, output)
    metadata = evidence.model.metadata
    prototypes = _prototypes(evidence, output, columns.count)
    if prototypes:
        return Extras(masks=MasksLayout("prototypes", prototypes.name, columns))
    shape = _keypoint_shape(metadata.get("kpt_shape", ""))
    if metadata.get("task", "pose") == "pose" and columns.count % 3 == 0 and shape is None:
        shape = columns.count // 3, 3
    if shape and shape[0] * shape[1] == columns.count:
        return Extras(keypoints=KeypointsLayout(columns, shape[1]))
    tasks = {"obb": "rotations", "segment": "masks", "pose": "keypoints"}
    return Extras(later=_LATER.format(tasks.get(metadata.get("task", ""), "further columns")))


def output_extras(evidence: Evidence, boxes: TensorSpec) -> Extras:
    """Return what outputs besides the boxes and scores are, whose rows are those of the boxes.

    Args:
        evidence: The outputs.
        boxes: The boxes, (1, n, 4) or (n, 4); n is -1 if it isn't fixed.
    """
    others = [o for o in evidence.outputs if o is not boxes and o.dtype.kind == "f"]
    rows = boxes.shape[-2]
    masks = next((o for o in others if "mask" in o.name and _has_rows(o, rows) and len(o.shape) > 2), None)
    points = next((o for o in others if "keypoint" in o.name and _has_rows(o, rows) and o.shape[-1] in (2, 3)), None)
    later = _LATER.format("masks") if masks is None and any("mask" in o.name for o in others) else ""
    if not later and points is None and any("keypoint" in o.name for o in others):
        later = _LATER.format("keypoints")
    return Extras(
        masks=None if masks is None else _masks(evidence, masks),
        keypoints=None if points is None else _keypoints(points, others),
        later=later,
    )


def _masks(evidence: Evidence, output: TensorSpec) -> MasksLayout:
    pasted = find_box_masks(evidence.model.model, output.name)
    probabilities = pasted is not None or are_probabilities(evidence.values[output.name].astype(np.float32))
    return MasksLayout("box" if pasted else "image", output.name, before=pasted, probabilities=probabilities)


def _keypoints(points: TensorSpec, others: list[TensorSpec]) -> KeypointsLayout:
    numbers = points.shape[-1]
    count = points.shape[-2]
    columns = Columns((points.name,), "rows", count * numbers, 0, count * numbers)
    scores = next((o for o in others if "keypoint" in o.name and o.shape == points.shape[:-1]), None)
    if scores is None:
        return KeypointsLayout(columns, numbers)
    return KeypointsLayout(columns, numbers, replace(columns, tensors=(scores.name,), width=count, count=count))


def _prototypes(evidence: Evidence, output: TensorSpec, count: int) -> TensorSpec | None:
    """Return the output with so many maps, if there is one."""
    maps = (o for o in evidence.outputs if o is not output and len(o.shape) == 4 and o.dtype.kind == "f")
    return next((o for o in maps if o.shape[:2] == (1, count) and evidence.is_map(o.shape[2:])), None)


def _has_rows(output: TensorSpec, rows: int) -> bool:
    """Return whether an output has a row per box, in its first dimension or behind a batch of 1."""
    shape = output.shape[1:] if output.shape[0] == 1 and rows != 1 else output.shape
    return len(shape) > 1 and (shape[0] == rows or min(shape[0], rows) < 0)


def _keypoint_shape(text: str) -> tuple[int, int] | None:
    """Return the number of keypoints and the numbers of each from Ultralytics' metadata, such as `[17, 3]`."""
    try:
        count, numbers = ast.literal_eval(text[:100])
    except (ValueError, SyntaxError, TypeError):
        return None
    fits = isinstance(count, int) and numbers in (2, 3) and 0 < count <= 1000
    return (count, numbers) if fits else None
