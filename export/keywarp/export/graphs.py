"""The networks as ONNX graphs.

Weights are stored as 16-bit floats, each followed by a Cast to 32 bits, which every runtime folds when it loads the
graph: half the size on disk, and nothing else changes. For the graphs to equal the networks exactly, `round_weights`
rounds the networks first.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from keywarp.engines.manifest import map_names
from keywarp.export.errors import ExportError
from keywarp.networks import DeepFeatureFlow, FlowNetwork, RecognitionNetwork, Warp
from keywarp.networks.flownet import INPUT_DOWNSCALE

ROUNDING = 2.0**-10  # of a weight's norm: twice what rounding to 11 significant bits can cost
OPSET = 17  # from 20 on, GridSample's modes are renamed and TensorRT misreads them


@dataclass(frozen=True)
class Graph:
    """One graph to export: a module with the names and ranks of what goes in and out."""

    file: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]


def graphs_of(network: DeepFeatureFlow[Any], height: int = 96, width: int = 128, batch: int = 1) -> list[Graph]:
    """The four graphs of a bundle, with random example inputs for an image of this size."""
    maps, std = network.recognition.maps, torch.tensor(network.recognition.std).view(1, 3, 1, 1)
    image = torch.randn(batch, 3, height, width) * 60
    half = (-(-height // INPUT_DOWNSCALE), -(-width // INPUT_DOWNSCALE))
    pair = (torch.randn(batch, 3, *half) * 60, torch.randn(batch, 3, *half) * 60)
    sizes = [(batch, m.channels, -(-height // m.stride), -(-width // m.stride)) for m in maps]
    finest = min(maps, key=lambda m: m.stride).stride
    features, scales = tuple(torch.rand(size) for size in sizes), tuple(torch.rand(size) for size in sizes)
    flow = torch.randn(batch, 2, -(-height // finest), -(-width // finest))
    names, scale_names, warped_names = (map_names(prefix, len(maps)) for prefix in ("features", "scale", "warped"))
    return [
        Graph("features.onnx", FeaturePart(network.recognition), ("image",), names, (image / std,)),
        Graph("flow.onnx", FlatFlow(network.flow), ("current", "key"), ("flow", *scale_names), pair),
        Graph(
            "warp.onnx",
            FlatWarp(network.warp),
            (*names, "flow", *scale_names),
            warped_names,
            (*features, flow, *scales),
        ),
        Graph("head.onnx", HeadPart(network.recognition), names, network.recognition.outputs, features),
    ]


class FeaturePart(nn.Module):
    """N_feat of a recognition network, as a module of its own."""

    def __init__(self, recognition: RecognitionNetwork[Any]) -> None:
        super().__init__()
        self.recognition = recognition

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W), normalised -> the feature maps."""
        return self.recognition.features(image)


class HeadPart(nn.Module):
    """N_task with the last step that has no parameters."""

    def __init__(self, recognition: RecognitionNetwork[Any]) -> None:
        super().__init__()
        self.recognition = recognition

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Feature maps -> what `predict` gives."""
        return self.recognition.predict(self.recognition.head(*features))


class FlatFlow(nn.Module):
    """The flow network with flat outputs."""

    def __init__(self, flow: FlowNetwork) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, current: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        """Half-size images -> the flow, and a scale field per feature map."""
        motion = self.flow(current, key)
        return (motion.flow, *motion.scales)


class FlatWarp(nn.Module):
    """The warp with flat inputs."""

    def __init__(self, warp: Warp) -> None:
        super().__init__()
        self.warp = warp

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Feature maps, flow, scale fields -> warped feature maps."""
        maps = len(self.warp.factors)
        warped: tuple[Tensor, ...] = self.warp(tensors[:maps], tensors[maps], tensors[maps + 1 :])
        return warped


def round_weights(network: nn.Module) -> None:
    """Round the weights that are stored as 16-bit floats to such, in place.

    Those that would lose more than 16 bits usually cost, being too small for them, stay as they are and are stored
    whole.

    Raises:
        ExportError: One is beyond their range, or isn't a number.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                rounded = parameter.half().float()
                if not bool(torch.isfinite(rounded).all()):
                    raise ExportError(f"{name} has values that aren't finite 16-bit floats")
                if bool((parameter - rounded).norm() <= ROUNDING * parameter.norm()):
                    parameter.copy_(rounded)


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """Trace a module to a graph with dynamic N, H and W.

    Args:
        graph: What to trace; its weights must have been rounded.

    Raises:
        ExportError: The result isn't a valid graph.
    """
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
            dynamic_axes=_dynamic_axes(graph),
            opset_version=OPSET,
            # Otherwise it would fold batch norms into weights, which are no longer rounded ones then.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    _halve(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{graph.file} is not a valid graph: {error}") from error
    return model


def _dynamic_axes(graph: Graph) -> dict[str, dict[int, str]]:
    """All dimensions but the channels of maps (N, C, H, W) and the last one of lists (N, n, C)."""
    with torch.inference_mode():
        outputs = graph.module.eval()(*graph.example)
    tensors = dict(zip((*graph.inputs, *graph.outputs), (*graph.example, *outputs), strict=True))
    axes = {4: {0: "n", 2: "h", 3: "w"}, 3: {0: "n", 1: "rows"}}
    return {
        name: {axis: "n" if axis == 0 else f"{name}_{size}" for axis, size in axes[tensor.ndim].items()}
        for name, tensor in tensors.items()
    }


def _halve(model: onnx.ModelProto) -> None:
    """Store in 16 bits what loses nothing by it, in place: the rounded weights."""
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
