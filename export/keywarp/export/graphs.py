"""The networks as ONNX graphs.

Weights are stored as 16-bit floats, each followed by a Cast to 32 bits, which every runtime folds when it loads the
graph: half the size on disk, and nothing else changes. For the graphs to equal the networks exactly, `round_weights`
rounds the networks first.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from keywarp.export.errors import ExportError
from keywarp.networks import FEATURE_STRIDE, DeepFeatureFlow
from keywarp.networks.flownet import INPUT_DOWNSCALE

OPSET = 17  # from 20 on, GridSample's modes are renamed and TensorRT misreads them


@dataclass(frozen=True)
class Graph:
    """One graph to export: a module with the names and ranks of what goes in and out."""

    file: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]


def graphs_of(network: DeepFeatureFlow, height: int = 96, width: int = 128, batch: int = 1) -> list[Graph]:
    """The four graphs of a bundle, with random example inputs for an image of this size."""
    channels = network.features.options.channels
    image = torch.randn(batch, 3, height, width) * 60
    half = (-(-height // INPUT_DOWNSCALE), -(-width // INPUT_DOWNSCALE))
    cells = (-(-height // FEATURE_STRIDE), -(-width // FEATURE_STRIDE))
    pair = (torch.randn(batch, 3, *half) * 60, torch.randn(batch, 3, *half) * 60)
    features = torch.rand(batch, channels, *cells)
    motion = (torch.randn(batch, 2, *cells), torch.rand(batch, channels, *cells))
    return [
        Graph("features.onnx", network.features, ("image",), ("features",), (image,)),
        Graph("flow.onnx", network.flow, ("current", "key"), ("flow", "scale"), pair),
        Graph("warp.onnx", network.warp, ("features", "flow", "scale"), ("warped",), (features, *motion)),
        Graph("head.onnx", network.head, ("features",), ("scores",), (features,)),
    ]


def round_weights(network: nn.Module) -> None:
    """Round the weights that are stored as 16-bit floats to such, in place.

    Raises:
        ExportError: One is beyond their range, or isn't a number.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                rounded = parameter.half().float()
                if not bool(torch.isfinite(rounded).all()):
                    raise ExportError(f"{name} has values that aren't finite 16-bit floats")
                parameter.copy_(rounded)


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Trace a module to a graph with dynamic N, H and W.

    Args:
        graph: What to trace; its weights must have been rounded.

    Raises:
        ExportError: The result isn't a valid graph.
    """
    dynamic = {name: {0: "n", 2: f"{name}_h", 3: f"{name}_w"} for name in (*graph.inputs, *graph.outputs)}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # deprecated, but chosen: its graphs are plain opset 17, which every runtime here takes
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            graph.module.eval(),
            graph.example,
            buffer,  # type: ignore[arg-type]  # a file is fine, as its documentation says
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    _halve(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{graph.file} is not a valid graph: {error}") from error
    return model


def _halve(model: onnx.ModelProto) -> None:
    """Store weights (not biases) in 16 bits, in place."""
    casts = []
    for initializer in model.graph.initializer:
        if initializer.data_type == onnx.TensorProto.FLOAT and len(initializer.dims) > 1:
            name = initializer.name
            values = numpy_helper.to_array(initializer).astype(np.float16)
            initializer.CopyFrom(numpy_helper.from_array(values, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
