"""What the graphs of a bundle are called at their ends: the contract between export and engines (docs/bundle.md)."""

from keywarp.engines.manifest import Manifest, map_names

HEAD_OUTPUTS = {  # by task, or kind of detection
    "segmentation": ("scores",),
    "regions": ("objectness", "anchor_deltas", "class_maps", "box_maps"),
    "dense": ("boxes", "scores"),
}
RANKS = {"objectness": 4, "anchor_deltas": 4, "class_maps": 4, "box_maps": 4, "boxes": 3, "scores": 3}  # of detection


def graph_ends(manifest: Manifest, file: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a graph's inputs and outputs.

    Args:
        manifest: The bundle's.
        file: `features.onnx`, `flow.onnx`, `warp.onnx` or `head.onnx`.
    """
    features, scales, warped = (map_names(prefix, len(manifest.features)) for prefix in ("features", "scale", "warped"))
    head = HEAD_OUTPUTS[manifest.detection.kind if manifest.detection else manifest.task]
    return {
        "features.onnx": (("image",), features),
        "flow.onnx": (("current", "key"), ("flow", *scales)),
        "warp.onnx": ((*features, "flow", *scales), warped),
        "head.onnx": (features, head),
    }[file]
