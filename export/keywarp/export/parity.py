"""The comparison of graphs with their networks, by running both."""

from typing import Any

import numpy as np
import onnx
import torch

from keywarp.engines.backends.ort import ort
from keywarp.export.errors import ExportError
from keywarp.export.graphs import Graph, graphs_of
from keywarp.networks import DeepFeatureFlow

# Both compute in 32 bits but sum in different orders, so they differ by some units in the last place of the largest
# value.
TOLERANCE = 1e-4  # relative to the largest value of an output
SIZES = ((128, 224, 1), (96, 64, 2), (97, 131, 1), (33, 250, 1))  # height, width, batch; rounded up to the multiple


def check_parity(network: DeepFeatureFlow[Any], graphs: dict[str, onnx.ModelProto]) -> float:
    """Compare all graphs with the network in ONNX Runtime on random inputs of several sizes.

    Args:
        network: The network, with rounded weights.
        graphs: The graphs by file name.

    Returns:
        The largest difference, relative to the output's largest value.

    Raises:
        ExportError: If a difference is above `TOLERANCE`, or shapes differ.
    """
    torch.manual_seed(0)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    sessions = {
        file: ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for file, model in graphs.items()
    }
    step = network.recognition.multiple
    sizes = [(height + -height % step, width + -width % step, batch) for height, width, batch in SIZES]
    return max(_difference(graph, sessions[graph.file]) for size in sizes for graph in graphs_of(network, *size))


def _difference(graph: Graph, session: ort.InferenceSession) -> float:
    with torch.inference_mode():
        result = graph.module(*graph.example)
    feeds = {name: tensor.numpy() for name, tensor in zip(graph.inputs, graph.example, strict=True)}
    worst = 0.0
    for name, want, found in zip(graph.outputs, result, session.run(list(graph.outputs), feeds), strict=True):
        where = f"{graph.file}, {name} for inputs of shape {[tuple(t.shape) for t in graph.example]}"
        if tuple(want.shape) != found.shape:
            raise ExportError(f"{where}: shape {found.shape} in ONNX Runtime, {tuple(want.shape)} in PyTorch")
        reference = want.numpy()
        difference = float(np.abs(found - reference).max() / max(np.abs(reference).max(), 1e-6))
        if not difference <= TOLERANCE:  # true for NaN as well
            raise ExportError(f"{where}: ONNX Runtime and PyTorch differ by {difference:.2e} of the largest value")
        worst = max(worst, difference)
    return worst
