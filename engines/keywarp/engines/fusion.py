"""Fuse a bundle's graphs into two or three, which run entirely on the device, so that features never leave it.

`current` and `key` are this frame and the key frame at the flow network's size, to which the host averages them::

    key:        frame -> prepare -> features.onnx -> head.onnx -> result
                                         '-> features (stay on the device)

    propagate:  current, key -> prepare -> flow.onnx -> warp.onnx -> head.onnx -> result
                                                           ^-- features

    with another flow instead:             flow (in cells) -> warp.onnx -> head.onnx -> result
                                                                 ^-- features

    with a flow that is repaired between the two:
                current, key -> prepare -> flow.onnx -> flow (to the host), scales (stay on the device)
                flow (repaired), scales -> warp.onnx -> head.onnx -> result
                                              ^-- features

Tensors that a bundle holds, such as class tokens, go from features.onnx past the warp to head.onnx.
Flow and scale field are separate: `propagate` can do without the scale field, and another flow can be joined with it.

The key frame's feature maps go from one graph to another as (h w, c) where the backend warps rows of channels.

`propagate` is also made for a batch: several frames, each of another stream with its own key frame. Each frame has
inputs of its own, see `of_frame`, which are joined in the graph, so that key features needn't lie side by side. Results
are arrays with as many rows as there are frames.

Frames are passed in as bytes. The graphs contain the part of the task's last step that every runtime supports. For
segmentation the result is labels as bytes, after bilinear up-sampling and argmax; or the scores, where the host does
that faster than the runtime (`keywarp.engines.labels`). For dense maps it is the head's values as they are. For
detection it is the head's outputs, in which `keywarp.engines.detection` finds the boxes outside of the graph. Where the
backend has kernels for the last step, that is a node of the graph (`keywarp.engines.last_step`). Height and width are
static, since runtimes compile faster code for static shapes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from keywarp.engines.batching import of_frame, run_on_batch
from keywarp.engines.bundle import Bundle
from keywarp.engines.errors import BundleError
from keywarp.engines.last_step import DOMAIN, OBJECTS, ROW, has_last_step, last_step_node
from keywarp.engines.manifest import RegionDetection, map_names
from keywarp.engines.motion import MotionSource
from keywarp.engines.passes import apply_passes
from keywarp.engines.signatures import DETECTION_RANKS, VALUES, head_outputs

FRAME = "frame"  # uint8 (1, H, W, 3), RGB, at the network's input size
FLOW = "flow"  # float (1, 2, h, w), (dx, dy) in cells of the finest map
CURRENT, KEY = "current", "key"  # uint8 (1, H / downscale, W / downscale, 3), RGB, images for the flow network
LABELS = "labels"  # uint8 (1, H, W)
SCORES = "scores"  # float (1, C, h, w), at the scores' stride


@dataclass(frozen=True, slots=True)
class GraphStyle:
    """How graphs are fused, apart from what they compute."""

    keep_features: bool = False  # whether the features go to the host as well, named as `kept` says
    channels_last: bool = False  # whether feature maps go from graph to graph as (h w, c) instead of (1, c, h, w)
    host_labels: bool = False  # whether a segmentation's result is its scores, of which the host makes labels
    last_step: bool = False  # whether the backend has kernels for the last step, see `keywarp.engines.last_step`
    inner_type: int = TensorProto.FLOAT  # of ONNX, in which floats go from slice to slice: that of the arithmetic


PLAIN = GraphStyle()


@dataclass(frozen=True)
class FusedGraph:
    """A graph to compile, and the names of the outputs that stay on the device."""

    model: onnx.ModelProto
    resident: frozenset[str]


def fuse_key(bundle: Bundle, height: int, width: int, style: GraphStyle = PLAIN) -> FusedGraph:
    """Return the graph of Algorithm 1, lines 8-9, for the features and the result of a key frame.

    Args:
        bundle: The bundle.
        height: The height of the networks' input in pixels.
        width: The width of the networks' input in pixels.
        style: How to fuse.

    Returns:
        The graph `frame` -> result, feature maps and held tensors; all but the result stay on the device.

    Raises:
        BundleError: If the graphs don't fit together.
    """
    draft = _Draft(bundle, height, width, style)
    features = draft.splice("features", image=draft.prepare())
    draft.know({features[name]: shape for name, shape in (draft.feature_shapes | draft.held_shapes).items()})
    draft.result(features)
    for name, shape in draft.feature_shapes.items():
        draft.output_map(name, features[name], shape)
    for name, shape in draft.held_shapes.items():
        draft.output(name, features[name], TensorProto.FLOAT, shape)
    return FusedGraph(draft.finish("key"), frozenset([*draft.feature_shapes, *draft.held_shapes]))


def fuse_propagate(
    bundle: Bundle, height: int, width: int, scale: bool = True, style: GraphStyle = PLAIN, frames: int = 1
) -> FusedGraph:
    """Return the graph of Algorithm 1, lines 11-12, which warps the key features along the flow network's flow.

    Args:
        bundle: The bundle.
        height: The height of the networks' input in pixels.
        width: The width of the networks' input in pixels.
        scale: Whether to multiply by the flow network's scale field; otherwise the scale is 1.
        style: How to fuse.
        frames: The number of frames in a batch.

    Returns:
        The graph `current`, `key`, the feature maps and the held tensors -> result and `flow`.

    Raises:
        BundleError: If the graphs don't fit together, or the flow network is made for one frame.
    """
    draft = _Draft(bundle, height, width, style, frames)
    motion = draft.motion()
    draft.propagate(motion["flow"], draft.scales(motion if scale else None))
    draft.output(FLOW, motion["flow"], TensorProto.FLOAT, draft.of_all(draft.flow_shape))
    return FusedGraph(draft.finish("propagate"), frozenset())


def fuse_motion(bundle: Bundle, height: int, width: int, scale: bool = True) -> FusedGraph:
    """Return the graph of the flow network alone, whose flow is repaired or chained before `fuse_warp` uses it.

    Args:
        bundle: The bundle.
        height: The height of the networks' input in pixels.
        width: The width of the networks' input in pixels.
        scale: Whether to output the scale fields, too.

    Returns:
        The graph `current` and `key` -> `flow` and the scale fields, which stay on the device.

    Raises:
        BundleError: If the graphs don't fit together.
    """
    draft = _Draft(bundle, height, width)
    motion = draft.motion()
    draft.output(FLOW, motion["flow"], TensorProto.FLOAT, draft.flow_shape)
    scales = draft.scale_shapes if scale else {}
    for name, shape in scales.items():
        draft.output(given(name), motion[name], TensorProto.FLOAT, shape)
    return FusedGraph(draft.finish("motion"), frozenset(map(given, scales)))


def fuse_warp(
    bundle: Bundle,
    height: int,
    width: int,
    scale: bool = False,
    given_scales: bool = False,
    style: GraphStyle = PLAIN,
    frames: int = 1,
) -> FusedGraph:
    """Return the graph that warps the key features along a given flow (section 3).

    Args:
        bundle: The bundle.
        height: The height of the networks' input in pixels.
        width: The width of the networks' input in pixels.
        scale: Whether to multiply by the flow network's scale field; otherwise the scale is 1.
        given_scales: Whether `fuse_motion` gave the scale fields; otherwise the flow network runs in this graph.
        style: How to fuse.
        frames: The number of frames in a batch.

    Returns:
        The graph `flow`, the feature maps and the held tensors -> result; with `scale` also of `current` and `key`,
        or of the scale fields that are given. The flow is (1, 2, H / stride, W / stride), in cells of the finest
        feature map.

    Raises:
        BundleError: If the graphs don't fit together, or the flow network is made for one frame.
    """
    draft = _Draft(bundle, height, width, style, frames)
    flow = draft.input(FLOW, TensorProto.FLOAT, draft.flow_shape)
    if scale and given_scales:
        shapes = draft.scale_shapes
        scales = {name: draft.input(given(name), TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    else:
        scales = draft.scales(draft.motion() if scale else None)
    draft.propagate(flow, scales)
    return FusedGraph(draft.finish("warp"), frozenset())


def fuse_all(
    bundle: Bundle,
    height: int,
    width: int,
    motion: MotionSource | None = None,
    style: GraphStyle = PLAIN,
) -> dict[str, FusedGraph]:
    """Return all graphs to compile for one input size of a bundle.

    Args:
        bundle: The bundle.
        height: The height of the networks' input in pixels.
        width: The width of the networks' input in pixels.
        motion: The motion source, or None for a given flow without a scale field.
        style: How to fuse.

    Returns:
        The graph `key`; `propagate` unless features are copied; if the flow network runs by itself, `motion` for flow
        and scale fields between frame and key frame, or `flow` for the flow between any two images.

    Raises:
        BundleError: If the graphs don't fit together.
        MotionError: If the bundle lacks what the motion source needs.
    """
    if motion is not None:
        bundle.check_motion(motion)
    size = (height, width)
    graphs = {"key": fuse_key(bundle, *size, style)}
    if motion is None or not motion.copies:
        graphs["propagate"] = fuse_frames(bundle, *size, motion, style)
    if motion and motion.runs_alone:
        if motion.chained:
            graphs["flow"] = fuse_motion(bundle, *size, scale=False)
        else:
            graphs["motion"] = fuse_motion(bundle, *size, motion.scale)
    return graphs


def fuse_frames(
    bundle: Bundle,
    height: int,
    width: int,
    motion: MotionSource | None = None,
    style: GraphStyle = PLAIN,
    frames: int = 1,
) -> FusedGraph:
    """Return the graph `propagate` of a motion source, for one frame or a batch.

    Args:
        bundle: The bundle.
        height: The height of the networks' input in pixels.
        width: The width of the networks' input in pixels.
        motion: See `fuse_all`. It isn't one that copies features.
        style: How to fuse.
        frames: The number of frames.

    Raises:
        BundleError: If the graphs don't fit together, or the flow network is made for one frame.
    """
    size = (height, width)
    if motion is None:
        return fuse_warp(bundle, *size, style=style, frames=frames)
    if motion.flow == "flow" and not motion.runs_alone:
        return fuse_propagate(bundle, *size, motion.scale, style, frames)
    direct = motion.runs_alone and not motion.chained
    return fuse_warp(bundle, *size, motion.scale, given_scales=direct, style=style, frames=frames)


def kept(name: str) -> str:
    """Return the name of the output with a copy of a feature map for the host."""
    return f"kept_{name}"


def spliced(graph: str, tensor: str) -> str:
    """Return the name that a tensor of one of the bundle's graphs, such as `head.onnx`, has in a fused graph."""
    return f"{graph.removesuffix('.onnx')}/{tensor}"


def given(name: str) -> str:
    """Return the name under which a scale field goes from one graph to another."""
    return f"given_{name}"


@dataclass
class _Draft:
    """A graph under construction: parts of the bundle and single nodes, connected by tensor names."""

    bundle: Bundle
    height: int
    width: int
    style: GraphStyle = field(default_factory=GraphStyle)
    frames: int = 1  # in a batch
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    known: list[onnx.ValueInfoProto] = field(default_factory=list)

    @property
    def small_shape(self) -> list[int]:
        downscale = self.bundle.manifest.flow.downscale
        return [1, -(-self.height // downscale), -(-self.width // downscale), 3]

    @property
    def feature_shapes(self) -> dict[str, list[int]]:
        return {
            f.name: [1, f.channels, -(-self.height // f.stride), -(-self.width // f.stride)]
            for f in self.bundle.manifest.features
        }

    @property
    def held_shapes(self) -> dict[str, list[int]]:
        return {h.name: [*h.shape] for h in self.bundle.manifest.held}

    @property
    def flow_shape(self) -> list[int]:
        return [1, 2, *self.feature_shapes[self.bundle.manifest.finest.name][2:]]

    @property
    def scale_shapes(self) -> dict[str, list[int]]:
        return dict(zip(map_names("scale", len(self.feature_shapes)), self.feature_shapes.values(), strict=True))

    def input(self, name: str, dtype: int, shape: list[int]) -> str:
        """Add an input of a shape for each frame; return all of them, joined."""
        return self.joined(self.inputs_of(name, dtype, shape))

    def inputs_of(self, name: str, dtype: int, shape: list[int]) -> list[str]:
        """Add an input of a shape for each frame."""
        names = [name] if self.frames == 1 else [of_frame(number, name) for number in range(self.frames)]
        self.inputs += [helper.make_tensor_value_info(name, dtype, shape) for name in names]
        return names

    def joined(self, tensors: list[str]) -> str:
        """Return one tensor of those of all frames, each with one row."""
        return tensors[0] if len(tensors) == 1 else self.node("Concat", *tensors, axis=0)

    def of_all(self, shape: list[int]) -> list[int]:
        """Return the shape of all frames' tensors, joined."""
        return [self.frames, *shape[1:]]

    def know(self, shapes: Mapping[str, list[int]]) -> None:
        """Note shapes of tensors that can't always be inferred."""
        self.known += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    def output(self, name: str, source: str, dtype: int, shape: Sequence[int | None]) -> None:
        self.nodes.append(helper.make_node("Identity", [source], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def input_map(self, name: str, shape: list[int]) -> str:
        """Add a feature map of the key frame as an input; return its name as (1, c, h, w), or of all frames."""
        if not self.style.channels_last:
            return self.input(name, TensorProto.FLOAT, shape)
        rows = self.inputs_of(name, TensorProto.FLOAT, _rows(shape))
        planes = [self.node("Transpose", tensor, perm=[1, 0]) for tensor in rows]
        return self.joined([self.node("Reshape", tensor, self.constant(np.array(shape))) for tensor in planes])

    def output_map(self, name: str, source: str, shape: list[int]) -> None:
        """Add a feature map of the key frame, (1, c, h, w), as an output."""
        if not self.style.channels_last:
            self.output(name, source, TensorProto.FLOAT, shape)
            return
        # OpenVINO copies nothing for this order of steps. Put the other way round, they took 2 ms of a light detector.
        cells, channels = _rows(shape)
        planes = self.node("Reshape", source, self.constant(np.array([1, channels, cells])))
        turned = self.node("Transpose", planes, perm=[0, 2, 1])
        rows = self.node("Reshape", turned, self.constant(np.array([cells, channels])))
        self.output(name, rows, TensorProto.FLOAT, [cells, channels])

    def constant(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def prepare(self) -> str:
        """Add the preparation of the frame; return the feature network's input."""
        image = self.bundle.manifest.image
        rgb = image.channel_order == "rgb"
        std = np.array(image.std if rgb else image.std[::-1], np.float32).reshape(1, 3, 1, 1)
        centred = self.centred(FRAME, [1, self.height, self.width, 3])
        normalised = centred if (std == 1).all() else self.node("Div", centred, self.constant(std))
        if not rgb:
            normalised = self.node("Gather", normalised, self.constant(np.array([2, 1, 0])), axis=1)
        return normalised

    def splice(self, part: str, **wires: str) -> dict[str, str]:
        """Add `<part>.onnx` with its inputs connected to tensors of this graph; return its outputs' names here."""
        prefix = f"{part}/"
        model = self.bundle.graph(f"{part}.onnx")
        graph = compose.add_prefix_graph(model.graph, prefix)
        self.nodes.extend(helper.make_node("Identity", [tensor], [prefix + name]) for name, tensor in wires.items())
        self.nodes.extend(graph.node)
        self.initializers.extend(graph.initializer)
        return {output.name: prefix + output.name for output in model.graph.output}

    def centred(self, name: str, shape: list[int]) -> str:
        """Add an image as an input, subtract the mean from it, and put its channels first."""
        mean = np.array(self.bundle.manifest.image.rgb_mean, np.float32).reshape(1, 3, 1, 1)
        images = self.inputs_of(name, TensorProto.UINT8, shape)
        # TensorRT takes bytes only to cast them, so they are joined afterwards.
        numbers = self.joined([self.node("Cast", image, to=TensorProto.FLOAT) for image in images])
        return self.node("Sub", self.node("Transpose", numbers, perm=[0, 3, 1, 2]), self.constant(mean))

    def motion(self) -> dict[str, str]:
        """Add the images' preparation and the flow network; return the names of the flow and the scales."""
        current, key = (self.centred(name, self.small_shape) for name in (CURRENT, KEY))
        return self.splice("flow", current=current, key=key)

    def scales(self, motion: dict[str, str] | None) -> dict[str, str]:
        """Return the scale fields that the flow network gave, or add fields of ones if there is no flow network."""
        if motion is not None:
            return {name: motion[name] for name in self.scale_shapes}
        one = self.constant(np.ones(1, np.float32))
        shapes = {
            name: self.constant(np.array(self.of_all(shape), np.int64)) for name, shape in self.scale_shapes.items()
        }
        return {name: self.node("Expand", one, shape) for name, shape in shapes.items()}

    def propagate(self, flow: str, scales: dict[str, str]) -> None:
        """Add the key frame's features and held tensors as inputs, the features' warp, and the result."""
        names = list(self.feature_shapes)
        features = {name: self.input_map(name, shape) for name, shape in self.feature_shapes.items()}
        warped = self.splice("warp", **features, flow=flow, **scales)
        moved = map_names("warped", len(names))
        for name, shape in self.held_shapes.items():
            if self.frames > 1 and shape[0] != 1:
                raise BundleError(f"{self.bundle.path} holds {name} of shape {shape}, which can't be part of a batch")
        held = {name: self.input(name, TensorProto.FLOAT, shape) for name, shape in self.held_shapes.items()}
        self.result({name: warped[w] for name, w in zip(names, moved, strict=True)} | held)

    def result(self, features: dict[str, str]) -> None:
        """Add the head on features and held tensors, and the outputs for the postprocessing."""
        manifest = self.bundle.manifest
        if self.style.keep_features:
            for name, shape in self.feature_shapes.items():
                self.output(kept(name), features[name], TensorProto.FLOAT, self.of_all(shape))
        shapes = self.feature_shapes | self.held_shapes
        begin = len(self.nodes)
        head = self.splice("head", **{name: features[name] for name in shapes})
        if self.frames > 1:
            given = {features[name]: len(shape) for name, shape in shapes.items()}
            nodes, constants, found = run_on_batch(
                self.nodes[begin:], self.initializers, given, head.values(), self.frames
            )
            self.nodes[begin:] = nodes
            self.initializers += constants
            head = {name: found[tensor] for name, tensor in head.items()}
        if self.style.last_step and has_last_step(manifest):
            self.last_step(head)
            return
        if manifest.task == "segmentation" and self.style.host_labels and manifest.scores_stride > 1:
            self.output(SCORES, head["scores"], TensorProto.FLOAT, [self.frames, None, None, None])
            return
        if manifest.task == "segmentation":
            labels = self.label(head["scores"])
            self.output(LABELS, labels, TensorProto.UINT8, [self.frames, self.height, self.width])
            return
        if manifest.task == "dense":
            self.output(VALUES, head[VALUES], TensorProto.FLOAT, [self.frames, 1, None, None])
            return
        for name, source in head.items():
            self.output(name, source, TensorProto.FLOAT, [None] * DETECTION_RANKS[name])

    def last_step(self, head: dict[str, str]) -> None:
        """Add the last step as a node of our own, which the backend runs itself."""
        manifest = self.bundle.manifest
        name, dtype, shape = LABELS, TensorProto.UINT8, [self.frames, self.height, self.width]
        if isinstance(manifest.detection, RegionDetection):
            name, dtype, shape = OBJECTS, TensorProto.FLOAT, [self.frames, 1 + manifest.detection.limit, ROW]
        names = head_outputs(manifest)
        if missing := [output for output in names if output not in head]:
            raise BundleError(f"head.onnx should give {missing[0]}, but it gives {', '.join(head)}")
        inputs = [head[output] for output in names]
        self.nodes.append(last_step_node(manifest, self.height, self.width, inputs, name))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def label(self, scores: str) -> str:
        """Add the class ids at the input's size, from scores at the features' stride (section 4).

        The up-sampling is two matrix products. They are faster than Resize, on OpenVINO several times.
        """
        stride = self.bundle.manifest.scores_stride
        if stride == 1:
            return self.node("Cast", self.node("ArgMax", scores, axis=1, keepdims=0), to=TensorProto.UINT8)
        rows = self.constant(_interpolation(self.height, stride))
        columns = self.constant(_interpolation(self.width, stride).T.copy())
        full = self.node("MatMul", rows, self.node("MatMul", scores, columns))
        return self.node("Cast", self.node("ArgMax", full, axis=1, keepdims=0), to=TensorProto.UINT8)

    def finish(self, name: str) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.initializers, value_info=self.known)
        opsets = [helper.make_opsetid("", self.bundle.manifest.opset)]
        if any(node.domain == DOMAIN for node in self.nodes):
            opsets.append(helper.make_opsetid(DOMAIN, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="keywarp")
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise BundleError(f"the graphs of {self.bundle.path} don't fit together: {error}") from error
        if self.frames > 1:
            self.check_batch(model)
        apply_passes(model.graph)
        return model

    def check_batch(self, model: onnx.ModelProto) -> None:
        """Check that flow and warped maps have a row for each frame. Those of a network for one frame may not."""
        ends = {spliced("flow", FLOW), *(spliced("warp", m) for m in map_names("warped", len(self.feature_shapes)))}
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except onnx.shape_inference.InferenceError as error:
            raise BundleError(f"the graphs of {self.bundle.path} can't take a batch: {error}") from error
        rows = {v.name: v.type.tensor_type.shape.dim[0] for v in inferred.value_info if v.type.tensor_type.shape.dim}
        for name in sorted(ends.intersection(output for node in self.nodes for output in node.output)):
            if name not in rows or rows[name].dim_value != self.frames:
                raise BundleError(
                    f"the graphs of {self.bundle.path} can't take a batch: with {self.frames} frames, {name} should "
                    "have as many rows, but its shape is made for one frame, or can't be inferred"
                )


def _rows(shape: list[int]) -> list[int]:
    """Return the shape (h w, c) of a map of shape (1, c, h, w)."""
    _, channels, height, width = shape
    return [height * width, channels]


def _interpolation(pixels: int, stride: int) -> NDArray[np.float32]:
    """Return the matrix (pixels, cells) that up-samples one dimension bilinearly; centres are at half pixels."""
    cells = -(-pixels // stride)
    position = np.clip((np.arange(pixels) + 0.5) / stride - 0.5, 0, cells - 1)
    distance = np.abs(position[:, np.newaxis] - np.arange(cells))
    weights: NDArray[np.float32] = np.maximum(0, 1 - distance).astype(np.float32)  # g of Eq. 2
    return weights
