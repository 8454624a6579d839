"""The weights of graphs in 16 bits."""

import numpy as np
import onnx
from onnx import numpy_helper


def store_in_16_bits(model: onnx.ModelProto) -> None:
    """Store the weights that 16-bit floats represent exactly as such, in place."""
    casts = []
    for initializer in model.graph.initializer:
        name = initializer.name
        if initializer.data_type != onnx.TensorProto.FLOAT or len(initializer.dims) < 2:
            continue
        values = numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if np.array_equal(halves.astype(np.float32), values):
            initializer.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
