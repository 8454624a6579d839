"""Let a graph that was made for one frame run on a batch of frames, whatever its nodes do.

Operators that treat the rows of a batch alike, such as convolutions, run once for all frames: nearly all of a head's
work is theirs. From the first other operator on, such as a Reshape to `(1, n, 4)`, there are copies of the nodes, one
for each frame, which share their weights. So a frame's result never depends on the frames beside it::

    joined maps -> Conv -> Relu -> Conv -> Split -> Reshape -> ... -> Concat -> boxes
                                             '----> Reshape -> ... ----'
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keywarp.engines.errors import BundleError

RANK: Final = 4  # of tensors that such operators take: (frames, channels, height, width), or channels last
# fmt: off
_CELLWISE: Final = frozenset({
    "Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "PRelu", "Relu", "Round", "Selu", "Sigmoid", "Softplus",
    "Sqrt", "Sub", "Tanh",
})
_LAYERS: Final = frozenset({
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DequantizeLinear", "GlobalAveragePool",
    "GlobalMaxPool", "InstanceNormalization", "MaxPool", "QuantizeLinear",
})
# fmt: on


def of_frame(number: int, name: str) -> str:
    """Return the name that a frame's tensor has in a graph for a batch, from that in the graph for one frame."""
    return f"frame_{number}/{name}"


def run_on_batch(
    nodes: Sequence[onnx.NodeProto],
    constants: Collection[TensorProto],
    joined: Mapping[str, int],
    outputs: Collection[str],
    frames: int,
) -> tuple[list[onnx.NodeProto], list[TensorProto], dict[str, str]]:
    """Rewrite nodes that are made for one frame, so that they take and give the tensors of a batch.

    Args:
        nodes: The nodes, in topological order.
        constants: The graph's constants.
        joined: The tensors that the nodes take, and their ranks. Each has a row for each frame.
        outputs: The tensors that the nodes give. For one frame, each has one row.
        frames: The number of frames.

    Returns:
        The new nodes, further constants that they need, and the names of the outputs with a row for each frame.

    Raises:
        BundleError: If the nodes hold loops or branches.
    """
    values = {constant.name: constant for constant in constants}
    for node in nodes:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = node.attribute[0].t
    together = {name for name, rank in joined.items() if rank == RANK}  # which operators may take whole
    apart: set[str] = set()  # tensors that each frame has of its own
    rewritten: list[onnx.NodeProto] = []
    sizes = numpy_helper.from_array(np.ones(frames, np.int64), of_frame(frames, "sizes"))
    split: set[str] = set()
    own = {*together, *joined}

    def rows(name: str) -> Iterator[onnx.NodeProto]:
        if name in own and name not in apart and name not in split:
            split.add(name)
            parts = [of_frame(number, name) for number in range(frames)]
            yield helper.make_node("Split", [name, sizes.name], parts, axis=0)

    for node in nodes:
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise BundleError(f"the operator {node.op_type} has a graph of its own, which can't take a batch")
        if not own.intersection(node.input):  # the same for all frames
            rewritten.append(node)
            continue
        own.update(node.output)
        if _takes_rows(node, together, own, values):
            together.update(node.output)
            rewritten.append(node)
            continue
        for name in node.input:
            rewritten += rows(name)
        apart.update(node.output)
        rewritten += (_copy(node, number, own) for number in range(frames))
    found: dict[str, str] = {}
    for name in outputs:
        found[name] = name if name in together else of_frame(frames, name)
        if name not in together:  # some are the same for all frames, such as anchors
            parts = [of_frame(number, name) if name in own else name for number in range(frames)]
            rewritten.append(helper.make_node("Concat", parts, [found[name]], axis=0))
    return rewritten, [sizes] if split else [], found


def _takes_rows(
    node: onnx.NodeProto, together: Collection[str], own: Collection[str], values: Mapping[str, TensorProto]
) -> bool:
    """Return whether an operator treats the rows of a batch alike, and keeps them."""
    attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    first, *others = node.input
    kind = node.op_type
    if kind in _CELLWISE:
        return all(name in together or (name not in own and _fits_all(name, values)) for name in node.input)
    if kind == "Concat":
        return attributes["axis"] not in (0, -RANK) and all(name in together for name in node.input)
    if first not in together or any(name in own for name in others):
        return False
    if kind == "Softmax":
        return attributes.get("axis", -1) in (1, 2, 3, -1, -2, -3)
    if kind == "Transpose":
        return "perm" in attributes and attributes["perm"][0] == 0
    if kind == "Resize":  # by factors, of which the first is 1; sizes would be those of one frame
        factors = values.get(others[1]) if len(others) == 2 else None
        return "axes" not in attributes and factors is not None and numpy_helper.to_array(factors)[:1].tolist() == [1.0]
    return kind in _LAYERS and len(node.output) == 1


def _fits_all(name: str, values: Mapping[str, TensorProto]) -> bool:
    """Return whether an operand is missing, or a constant without rows."""
    if not name:
        return True
    value = values.get(name)
    return value is not None and (len(value.dims) < RANK or (len(value.dims) == RANK and value.dims[0] == 1))


def _copy(node: onnx.NodeProto, number: int, own: Collection[str]) -> onnx.NodeProto:
    """Return a frame's copy of a node."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = of_frame(number, node.name) if node.name else ""
    copy.input[:] = [of_frame(number, name) if name in own else name for name in node.input]
    copy.output[:] = [of_frame(number, name) if name else "" for name in node.output]
    return copy
