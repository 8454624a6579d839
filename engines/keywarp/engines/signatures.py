"""The names of the graphs' inputs and outputs, the contract between export and engines (docs/bundle.md)."""

from keywarp.engines.manifest import DenseDetection, Manifest, map_names

VALUES = "values"  # of a head for dense maps
HEAD_OUTPUTS = {  # by task, or by kind of detection
    "segmentation": ("scores",),
    "regions": ("objectness", "anchor_deltas", "class_maps", "box_maps"),
    "dense": ("boxes", "scores"),
}
MASK_OUTPUTS = {  # by kind of masks
    "prototypes": ("mask_coefficients", "mask_prototypes"),
    "image": ("masks",),
    "box": ("masks",),
}
DETECTION_RANKS = {  # number of dimensions by output
    "objectness": 4,
    "anchor_deltas": 4,
    "class_maps": 4,
    "box_maps": 4,
    "boxes": 3,
    "scores": 3,
    "mask_coefficients": 3,
    "mask_prototypes": 4,
    "masks": 4,
    "keypoints": 4,
}


def head_outputs(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the head's outputs."""
    if manifest.task == "dense":  # not the kind of detection of this name
        return (VALUES,)
    detection = manifest.detection
    names = HEAD_OUTPUTS[detection.kind if detection else manifest.task]
    if isinstance(detection, DenseDetection):
        names += MASK_OUTPUTS[detection.masks] if detection.masks else ()
        names += ("keypoints",) if detection.keypoints else ()
    return names


def graph_signature(manifest: Manifest, file: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a graph's inputs and those of its outputs.

    Args:
        manifest: The bundle's manifest.
        file: The graph's file: `features.onnx`, `flow.onnx`, `warp.onnx` or `head.onnx`.
    """
    features, scales, warped = (map_names(prefix, len(manifest.features)) for prefix in ("features", "scale", "warped"))
    held = tuple(h.name for h in manifest.held)
    return {
        "features.onnx": (("image",), (*features, *held)),
        "flow.onnx": (("current", "key"), ("flow", *scales)),
        "warp.onnx": ((*features, "flow", *scales), warped),
        "head.onnx": ((*features, *held), head_outputs(manifest)),
    }[file]
