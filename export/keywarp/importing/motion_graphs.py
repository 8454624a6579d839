"""The graphs that move features, for any feature maps, without torch: the warp, and the pre-trained flow network.

The warp is small, and built here from nodes. The flow network is `keywarp.networks.FlowPyramid` with the weights that
come with Keywarp. Most of it doesn't depend on the feature maps, and lies next to this module as a graph;
`make flow-graph` writes that file from the weights. What depends on the maps is added here: the flow at the stride of
the finest map, and for each map a layer that gives its scale field, which is 1 until `keywarp adapt` trains it.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from keywarp.engines.manifest import map_names

OPSET = 17  # by default
SHIPPED = Path(__file__).with_name("flow_pyramid.onnx")  # current, key -> native_flow, state, at NATIVE_STRIDE
NATIVE_FLOW, STATE = "native_flow", "state"
NATIVE_STRIDE = 8  # pixels of the image per cell of these
STATE_CHANNELS = 32
DOWNSCALE = 2  # of the images that the network was trained on
AXES = ((0, 3), (1, 2))  # of flow and map: dx along the rows, dy along the columns
AXES_AS_INPUT = 18  # opset from which a reduction's axes are an input
POOLING: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}


class Map(Protocol):
    """The size of a feature map: (N, channels, ceil(H / stride), ceil(W / stride)) for images of (H, W) pixels."""

    @property
    def channels(self) -> int:
        """The number of channels."""
        ...

    @property
    def stride(self) -> int:
        """The image pixels per cell."""
        ...


def warp_graph(maps: Sequence[Map], opset: int = OPSET) -> onnx.ModelProto:
    """Return the warp of a bundle, which moves feature maps along a flow (Eq. 1 to 3 of the paper).

    Args:
        maps: The feature maps. Their strides are the finest one times powers of 2.
        opset: The version of ONNX's operators, 16 to 19.

    Returns:
        The graph `features`, `flow`, `scale` -> `warped`, numbered if there are several maps, as docs/bundle.md says.

    Raises:
        ValueError: If a stride isn't the finest stride times a power of 2.
    """
    finest = _finest(maps)
    names, scales, warped = (map_names(prefix, len(maps)) for prefix in ("features", "scale", "warped"))
    draft = _Draft()
    flows = {1: "flow"}  # by the factor of the stride to the finest
    for factor in (2**n for n in range(1, 1 + max(m.stride // finest for m in maps).bit_length() - 1)):
        pooled = draft.node("AveragePool", flows[factor // 2], **POOLING)
        flows[factor] = draft.node("Div", pooled, draft.scalar(2.0))
    for name, scale, result, m in zip(names, scales, warped, maps, strict=True):
        grid = draft.grid(name, flows[m.stride // finest])
        moved = draft.node("GridSample", name, grid, mode="bilinear", padding_mode="zeros", align_corners=1)
        draft.node("Mul", moved, scale, output=result)
    channels = {**{n: m.channels for n, m in zip(names, maps, strict=True)}, "flow": 2}
    channels |= {n: m.channels for n, m in zip(scales, maps, strict=True)}
    return draft.finish("warp", opset, channels, {n: m.channels for n, m in zip(warped, maps, strict=True)})


def flow_graph(maps: Sequence[Map], opset: int = OPSET, downscale: int = DOWNSCALE) -> onnx.ModelProto:
    """Return the pre-trained flow network for some feature maps. Their scale fields are 1.

    Args:
        maps: The feature maps. Their strides are multiples of `downscale`, and the finest one times powers of 2.
        opset: The version of ONNX's operators, 16 to 19.
        downscale: The factor by which the flow network's images are smaller than the image.

    Returns:
        The graph `current`, `key` -> `flow`, `scale`, numbered if there are several maps, as docs/bundle.md says. The
        flow points to places in the map.

    Raises:
        ValueError: If a stride isn't a multiple of `downscale`, or not the finest stride times a power of 2.
    """
    finest = _finest(maps)
    if finest % downscale:
        raise ValueError(
            f"strides must be multiples of {downscale}, since the flow network's images are 1/{downscale} of the size, "
            f"not {finest}"
        )
    # What the network gets is to it half of an image, in which cells are as large as here.
    seen = {stride: DOWNSCALE * stride // downscale for stride in {m.stride for m in maps}}
    draft = _Draft()
    for name, m in zip(map_names("scale", len(maps)), maps, strict=True):
        state = draft.resampled(STATE, seen[m.stride])
        weight = draft.half(np.zeros((m.channels, STATE_CHANNELS, 1, 1), np.float16), f"flow.{_layer(name)}.weight")
        bias = draft.constant(np.ones(m.channels, np.float32), f"flow.{_layer(name)}.bias")
        draft.node("Conv", state, weight, bias, output=name, kernel_shape=[1, 1])
    flow = draft.resampled(NATIVE_FLOW, seen[finest])
    draft.inside(draft.node("Mul", flow, draft.scalar(NATIVE_STRIDE / seen[finest])), output="flow")
    scales = dict(zip(map_names("scale", len(maps)), (m.channels for m in maps), strict=True))
    return draft.finish("flow", opset, {"current": 3, "key": 3}, {"flow": 2, **scales}, before=_shipped(opset))


@cache
def _shipped(opset: int) -> onnx.GraphProto:
    """Return the part that doesn't depend on the maps. Its file has opset 17."""
    graph = onnx.load(SHIPPED).graph
    for number, node in enumerate(graph.node):
        if node.op_type == "ReduceMean" and opset >= AXES_AS_INPUT:
            axes = next(attribute for attribute in node.attribute if attribute.name == "axes")
            graph.initializer.append(numpy_helper.from_array(np.array(axes.ints, np.int64), f"axes_{number}"))
            node.input.append(f"axes_{number}")
            node.attribute.remove(axes)
    return graph


def _layer(scale: str) -> str:
    """Return the name in `FlowPyramid` of the layer that gives a scale field, by which `keywarp adapt` finds it."""
    return f"scales.{scale.partition('_')[2] or 0}"


def _finest(maps: Sequence[Map]) -> int:
    """Return the stride that all others are multiples of."""
    finest = min(m.stride for m in maps)
    if any(m.stride % finest or (m.stride // finest).bit_count() != 1 for m in maps):
        raise ValueError(f"strides must be powers of 2 times the finest one, not {[m.stride for m in maps]}")
    return finest


class _Draft:
    """Nodes and constants under construction. Tensors are known by their names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._resampled: dict[tuple[str, int], str] = {}

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; return that tensor."""
        result = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [result], f"node_{len(self.nodes)}", **attributes))
        return result

    def constant(self, value: NDArray[np.generic], name: str) -> str:
        """Add a constant once; return it."""
        self.constants.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32), f"number_{value:g}")

    def numbers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64), f"numbers_{'_'.join(map(str, values))}")

    def half(self, value: NDArray[np.float16], name: str) -> str:
        """Add a weight that is stored in 16 bits and used in 32, as all weights of bundles are."""
        return self.node("Cast", self.constant(value, f"{name}.half"), output=name, to=TensorProto.FLOAT)

    def grid(self, features: str, flow: str) -> str:
        """Add the places (N, H, W, 2) that a flow in cells points to, in GridSample's units.

        -1 and 1 are the centres of the first and last cell. A single cell has no extent to divide by.
        """
        parts = []
        for channel, axis in AXES:
            cells, last = self.along(features, axis)
            step = self.node("Gather", flow, self.constant(np.array(channel), f"index_{channel}"), axis=1)
            half = self.node("Div", self.node("Max", last, self.scalar(1.0)), self.scalar(2.0))
            place = self.node("Sub", self.node("Div", self.node("Add", step, cells), half), self.scalar(1.0))
            parts.append(self.node("Unsqueeze", place, self.numbers(-1)))
        return self.node("Concat", *parts, axis=-1)

    def inside(self, flow: str, output: str) -> str:
        """Add the flow that ends at the map's border where another one leaves the map."""
        parts = []
        for channel, axis in AXES:
            cells, last = self.along(flow, axis)
            step = self.node("Gather", flow, self.numbers(channel), axis=1)
            step = self.node("Max", step, self.node("Neg", cells))
            parts.append(self.node("Min", step, self.node("Sub", last, cells)))
        return self.node("Concat", *parts, output=output, axis=1)

    def along(self, tensor: str, axis: int) -> tuple[str, str]:
        """Add the places of a map's cells along an axis, (W,) or (H, 1), and that of the last one."""
        size = self.node("Gather", self.node("Shape", tensor), self.constant(np.array(axis), f"index_{axis}"))
        count = self.node("Cast", size, to=TensorProto.FLOAT)
        cells = self.node("Range", self.scalar(0.0), count, self.scalar(1.0))
        if axis == 2:
            cells = self.node("Unsqueeze", cells, self.numbers(1))
        return cells, self.node("Sub", count, self.scalar(1.0))

    def resampled(self, tensor: str, stride: int) -> str:
        """Add the resampling of a map from `NATIVE_STRIDE` to another stride, without changing its values' unit."""
        if stride == NATIVE_STRIDE:
            return tensor
        if (tensor, stride) not in self._resampled:
            if stride < NATIVE_STRIDE and NATIVE_STRIDE % stride == 0:
                found = self.doubled(self.resampled(tensor, stride * 2), stride)
            elif stride >= 2 * NATIVE_STRIDE and stride % 4 == 0:
                found = self.node("AveragePool", self.resampled(tensor, stride // 2), **POOLING)
            else:
                found = self.resized(tensor, stride)
            self._resampled[tensor, stride] = found
        return self._resampled[tensor, stride]

    def doubled(self, tensor: str, stride: int) -> str:
        """Add the doubling of a map's resolution, cropped to the cells of a stride that the image has."""
        scales = self.constant(np.array([1, 1, 2, 2], np.float32), "twice")
        large = self.node("Resize", tensor, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
        return self.node("Slice", large, self.numbers(0, 0), self.cells(stride), self.numbers(2, 3))

    def resized(self, tensor: str, stride: int) -> str:
        """Add the resizing of a map to the cells of a stride that isn't a power of 2."""
        kept = self.node("Slice", self.node("Shape", tensor), self.numbers(0), self.numbers(2))
        size = self.node("Concat", kept, self.cells(stride), axis=0)
        return self.node("Resize", tensor, "", "", size, mode="linear", coordinate_transformation_mode="half_pixel")

    def cells(self, stride: int) -> str:
        """Add the numbers of rows and columns that the image has at a stride."""
        size = self.node("Slice", self.node("Shape", "current"), self.numbers(2), self.numbers(4))
        pixels = stride // DOWNSCALE  # of the half-size image per cell
        return self.node("Div", self.node("Add", size, self.numbers(pixels - 1)), self.numbers(pixels))

    def finish(
        self,
        name: str,
        opset: int,
        inputs: dict[str, int],
        outputs: dict[str, int],
        before: onnx.GraphProto | None = None,
    ) -> onnx.ModelProto:
        """Make a graph of the nodes, after those of another graph. Inputs and outputs are given by their channels."""

        def values(channels: dict[str, int]) -> list[onnx.ValueInfoProto]:
            dynamic: dict[str, list[str | int | None]] = {n: ["n", c, f"{n}_h", f"{n}_w"] for n, c in channels.items()}
            return [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in dynamic.items()]

        nodes, constants = list(self.nodes), list(self.constants.values())
        if before is not None:
            nodes, constants = [*before.node, *nodes], [*before.initializer, *constants]
        graph = helper.make_graph(nodes, name, values(inputs), values(outputs), constants)
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="keywarp")
        onnx.checker.check_model(model, full_check=True)
        return model
