"""The part of a detector that selects objects, left out of its graph.

torchvision's RetinaNet and FCOS choose the best boxes of each level and suppress overlaps in the graph. These nodes
depend on the image's content in all their shapes: runtimes disagree about near ties, ONNX Runtime refuses FCOS's where
a level has no box, and all of that runs on every frame. What goes into them says the same, with a row for every place,
and the engine selects by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.model_file import ImportedModel, TensorSpec
from keywarp.importing.result_format import Background, BoxForm, Grid

STRIDES = (8, 16, 32, 64, 128)  # of the levels of both networks
ANCHORS = 9  # of RetinaNet in each cell; FCOS has one place in each, and a measure of how central it is
SELECTING = ("NonMaxSuppression", "TopK", "NonZero")  # one of these is in every selection


@dataclass(frozen=True)
class Places:
    """A detector that gives all of its places: boxes (1, n, 4), scores (1, n, classes), and (1, n, 1) if it is FCOS."""

    model: ImportedModel
    boxes: BoxForm

    def background(self, named: int) -> Background:
        """Return where the background is: torchvision's label 0, unless so many classes are named as there are labels.

        Args:
            named: The number of names that the user gives.
        """
        return "none" if named == self.model.outputs[1].shape[2] else "first"


def without_selection(model: ImportedModel) -> Places | None:
    """Return a detector with the outputs of all its places instead of selected objects.

    Args:
        model: The network of a file.

    Returns:
        The detector, or None if there is no selection, or none of a kind that is known.
    """
    graph = Graph(model.model)
    if not any(node.op_type in SELECTING for node in graph.nodes):
        return None
    cells = Grid(STRIDES).count(model.height, model.width)
    for names in _sets(graph, cells):
        rest = graph.needed(graph.outputs, names)
        if any(IMAGE in graph.reads[index] for index in rest):
            continue  # results depend on more than these
        if any(graph.nodes[index].op_type in SELECTING for index in rest):
            return Places(_with_outputs(model, graph, names), "deltas" if len(names) == 2 else "distances")
    return None


def _sets(graph: Graph, cells: int) -> Iterator[tuple[str, ...]]:
    """Yield the tensors that may be the boxes and scores of all places of RetinaNet or FCOS, last ones first."""
    tables: dict[tuple[int, int], list[str]] = {}
    for node in reversed(graph.nodes):
        for name in node.output:
            shape = graph.shapes.get(name, ())
            fits = len(shape) == 3 and shape[0] == 1 and shape[1] in (cells, ANCHORS * cells)
            if fits and graph.types.get(name) == TensorProto.FLOAT and node.op_type == "Concat":
                tables.setdefault((shape[1], shape[2]), []).append(name)
    for (rows, width), names in tables.items():
        if width in (1, 4):
            continue
        for scores in names:
            for boxes in tables.get((rows, 4), []):
                if rows > cells:
                    yield boxes, scores
                for centre in tables.get((rows, 1), []) if rows == cells else []:
                    yield boxes, scores, centre


def _with_outputs(model: ImportedModel, graph: Graph, names: tuple[str, ...]) -> ImportedModel:
    nodes = [graph.nodes[index] for index in graph.needed(names)]
    part = graph.part("network", nodes, [graph.value(IMAGE)], [graph.value(name) for name in names])
    part.graph.value_info.extend(model.model.graph.value_info)
    outputs = tuple(TensorSpec(name, graph.shapes[name], np.dtype(np.float32)) for name in names)
    return replace(model, model=part, outputs=outputs)
