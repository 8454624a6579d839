"""Parts of results that aren't used yet: masks, keypoints, rotations."""

from keywarp.importing.model_file import TensorSpec
from keywarp.importing.recognition.evidence import Evidence

PROTOTYPES = 32  # masks that the masks of YOLO's objects are sums of
POSE = 51  # columns of COCO's 17 keypoints
_TASKS = {"pose": "keypoints", "obb": "rotations", "segment": "masks"}  # Ultralytics' names


def extra_columns(evidence: Evidence, output: TensorSpec, width: int) -> int:
    """Return the number of columns behind a table's scores: coefficients of masks, keypoints or an angle.

    Args:
        evidence: The outputs.
        output: The table.
        width: Its columns.
    """
    task = evidence.model.metadata.get("task", "")
    known = evidence.known_classes
    if task == "pose" and known:
        return max(0, width - 4 - known)
    if task == "obb":
        return 1
    maps = [o.shape[1] for o in evidence.outputs if o is not output and len(o.shape) == 4]
    if PROTOTYPES in maps and width > PROTOTYPES + 4:
        return PROTOTYPES
    return POSE if width == 4 + 1 + POSE and not known else 0


def later_sentence(evidence: Evidence, output: TensorSpec, extra: int = 0) -> str:
    """Say which part of the result isn't used yet; nothing if all of it is.

    Args:
        evidence: The outputs.
        output: The table or the boxes.
        extra: The number of columns behind the scores.
    """
    others = [o for o in evidence.outputs if o is not output]
    what = _TASKS.get(evidence.model.metadata.get("task", "")) if extra else None
    if what is None:
        if any("mask" in o.name for o in others) or (extra and any(len(o.shape) == 4 for o in others)):
            what = "masks"
        elif extra or any("keypoint" in o.name for o in others):
            what = "keypoints" if extra % 3 == 0 else "further columns"
    if what is None:
        return ""
    return f"its {what} come in a later version: only the boxes are used"
