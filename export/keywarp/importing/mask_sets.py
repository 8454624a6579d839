"""Networks that give a set of masks with a class each, with the scores of pixels that are made of them as their output.

A mask moves with the image, and its class doesn't. So such a network can't be cut at its outputs, and at maps before
its decoder the cut is expensive. What becomes of both, a score per pixel and class, is one map that moves.
"""

from dataclasses import replace

import numpy as np
from onnx import shape_inference

from keywarp.importing.decoding.segmentation import append_mask_set
from keywarp.importing.graph import Graph
from keywarp.importing.model_file import ImportedModel, TensorSpec
from keywarp.importing.result_format import MaskSetLayout, ResultFormat, SegmentationLayout


def with_scores(model: ImportedModel, result: ResultFormat) -> tuple[ImportedModel, ResultFormat]:
    """Return a network that gives scores (1, classes, h, w) instead of masks and classes, and what these mean.

    Args:
        model: The network.
        result: What its outputs mean. If they aren't a set of masks, both are returned as they are.

    Raises:
        ImportingError: If the masks have no static size.
    """
    if not isinstance(result.layout, MaskSetLayout):
        return model, result
    decoded = append_mask_set(model.model, result.layout, model.height, model.width)
    graph = Graph(shape_inference.infer_shapes(decoded, data_prop=True))
    (name,) = graph.outputs
    scores = TensorSpec(name, graph.shapes[name], np.dtype(np.float32))
    layout = SegmentationLayout(name, "channels_first", scores.shape[1])
    return replace(model, model=graph.model, outputs=(scores,)), replace(result, layout=layout)
