"""Recognise a segmentation that is made of a set of masks with a class each (MaskFormer, Mask2Former)."""

from keywarp.importing.class_names import COCO, ClassNames
from keywarp.importing.recognition.evidence import MOST_OBJECTS, Evidence, shape_text
from keywarp.importing.result_format import BACKGROUND, MaskSetLayout, ResultFormat


def recognise_mask_set(evidence: Evidence) -> ResultFormat | None:
    """Return what the outputs mean if they are masks (1, n, h, w) and classes (1, n, classes + 1), without boxes.

    Args:
        evidence: The outputs.
    """
    tables = [o for o in evidence.outputs if len(o.shape) == 3 and o.shape[0] == 1 and o.dtype.kind == "f"]
    maps = [o for o in evidence.outputs if len(o.shape) == 4 and o.shape[0] == 1 and o.dtype.kind == "f"]
    if not tables or not maps or any(o.shape[2] == 4 for o in tables):
        return None
    classes, masks = tables[0], maps[0]
    rows = classes.shape[1]
    if rows != masks.shape[1] or rows > MOST_OBJECTS or not evidence.is_map(masks.shape[2:]) or classes.shape[2] < 2:
        return None
    count = classes.shape[2] - 1
    # COCO's classes are things, which don't cover a picture.
    implied = evidence.hints.background == "first" or (evidence.hints.background is None and count in (1, len(COCO)))
    names = evidence.names(count, segmentation=not implied)
    if implied:
        names = ClassNames((BACKGROUND, *names.names), f"{names.origin}, and a background where none is above 0.5")
    listed = ", ".join(f"{o.name} {shape_text(o.shape)}" for o in (classes, masks))
    guess = (
        f"looks like a segmentation by a set of {rows} masks (MaskFormer, Mask2Former) of {count} classes, from "
        f"{listed}; the classes are {names.origin}"
    )
    layout = MaskSetLayout(masks.name, classes.name, count, implied)
    return ResultFormat("segmentation", layout, names.names, guess, background=implied)
