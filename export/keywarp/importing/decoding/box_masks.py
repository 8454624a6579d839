"""The masks of boxes that a file pastes into images as its last step, as torchvision's Mask R-CNN does.

A hundred masks of a whole image are 160 MB. Engines paste only those that are reported, so the masks are taken before.
"""

from collections import deque

import onnx

MOST_ANCESTORS = 200  # nodes among which the masks are looked for
SIDES = range(7, 113)  # cells of a mask along the side of its box


def find_box_masks(model: onnx.ModelProto, output: str) -> str | None:
    """Find the masks (n, 1, side, side) of which images (n, 1, h, w) are made.

    Args:
        model: The whole network, with the shapes of its tensors.
        output: The output with the images.

    Returns:
        The tensor's name. None if there is none.
    """
    shapes = _shapes(model)
    own = shapes.get(output, ())
    if len(own) == 4 and own[1] > 1:
        return None  # masks of the image, (1, n, h, w)
    producers = {name: node for node in model.graph.node for name in node.output}
    ahead, seen = deque([output]), {output}
    while ahead and len(seen) < MOST_ANCESTORS:
        tensor = ahead.popleft()
        if _is_square(shapes.get(tensor, ())):
            return tensor
        node = producers.get(tensor)
        fresh = [name for name in node.input if name and name not in seen] if node else []
        seen.update(fresh)
        ahead.extend(fresh)
    return None


def _is_square(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] != 1 == shape[1] and shape[2] == shape[3] and shape[2] in SIDES


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors; -1 is a dimension that isn't fixed."""
    graph = model.graph
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
