"""The networks as ONNX graphs.

Weights are stored as 16-bit floats, which halves the files. A Cast to 32 bits follows each of them, and every runtime
folds it when it loads the graph. `round_weights` rounds the networks' own weights first, so that the graphs equal the
networks exactly.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from keywarp.engines.manifest import map_names
from keywarp.export.errors import ExportError
from keywarp.importing.weights import store_in_16_bits
from keywarp.networks import DeepFeatureFlow, FlowNetwork, RecognitionNetwork, Warp
from keywarp.networks.flownet import INPUT_DOWNSCALE

ROUNDING = 2.0**-10  # largest relative change of a weight's norm: twice what rounding to 11 bits can cost
OPSET = 17  # opset 20 renames GridSample's modes, which TensorRT misreads


@dataclass(frozen=True)
class Graph:
    """One graph to export: a module with the names of its inputs and outputs, and example inputs."""

    file: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]


def graphs_of(network: DeepFeatureFlow[Any], height: int = 96, width: int = 128, batch: int = 1) -> list[Graph]:
    """Return the four graphs of a bundle, with random example inputs.

    Args:
        network: The networks.
        height: The example image's height in pixels.
        width: The example image's width in pixels.
        batch: The number of example images.
    """
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
    """The feature network N_feat of a recognition network."""

    def __init__(self, recognition: RecognitionNetwork[Any]) -> None:
        super().__init__()
        self.recognition = recognition

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of normalised images (N, 3, H, W)."""
        return self.recognition.features(image)


class HeadPart(nn.Module):
    """The head N_task of a recognition network, followed by `predict`, which has no parameters."""

    def __init__(self, recognition: RecognitionNetwork[Any]) -> None:
        super().__init__()
        self.recognition = recognition

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of `predict` for the feature maps."""
        return self.recognition.predict(self.recognition.head(*features))


class FlatFlow(nn.Module):
    """The flow network with its outputs in one tuple."""

    def __init__(self, flow: FlowNetwork) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, current: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        """Return the flow between half-size images, and a scale field for each feature map."""
        motion = self.flow(current, key)
        return (motion.flow, *motion.scales)


class FlatWarp(nn.Module):
    """The warp with its inputs in one tuple."""

    def __init__(self, warp: Warp) -> None:
        super().__init__()
        self.warp = warp

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the warped feature maps, given feature maps, the flow and scale fields."""
        maps = len(self.warp.factors)
        warped: tuple[Tensor, ...] = self.warp(tensors[:maps], tensors[maps], tensors[maps + 1 :])
        return warped


def round_weights(network: nn.Module) -> None:
    """Round weights to 16-bit floats, in place.

    Weights that are so small that they would lose more than usual stay as they are, and are stored with 32 bits.

    Raises:
        ExportError: If a weight is beyond the range of 16-bit floats, or not a number.
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
    """Trace a module to an ONNX graph with dynamic N, H and W.

    Args:
        graph: The graph to trace; its weights must have been rounded.

    Raises:
        ExportError: If the result isn't a valid graph.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # This exporter is deprecated, but its graphs have plain opset 17, which every runtime here supports.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            graph.module.eval(),
            graph.example,
            buffer,  # type: ignore[arg-type]  # it accepts a file, as its documentation says
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=_dynamic_axes(graph),
            opset_version=OPSET,
            # Otherwise it would fold batch norms into the weights, which would then not be rounded any more.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    store_in_16_bits(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{graph.file} is not a valid graph: {error}") from error
    return model


def _dynamic_axes(graph: Graph) -> dict[str, dict[int, str]]:
    """Name the dynamic dimensions: all but the channels of maps (N, C, H, W) and the last of lists (N, n, C)."""
    with torch.inference_mode():
        outputs = graph.module.eval()(*graph.example)
    tensors = dict(zip((*graph.inputs, *graph.outputs), (*graph.example, *outputs), strict=True))
    axes = {4: {0: "n", 2: "h", 3: "w"}, 3: {0: "n", 1: "rows"}}
    return {
        name: {axis: "n" if axis == 0 else f"{name}_{size}" for axis, size in axes[tensor.ndim].items()}
        for name, tensor in tensors.items()
    }
