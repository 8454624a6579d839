"""ONNX operators (opset 16 to 19) in differentiable PyTorch.

Each function takes a node and its inputs, with None for inputs that are left out, and returns the outputs. These are
the operators that flow networks and heads consist of; `OPERATORS` has all of them by name.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from keywarp.adaptation.errors import OperatorError

Inputs = Sequence[Tensor | None]
Operator = Callable[["Node", Sequence[Any]], Tensor | tuple[Tensor, ...]]

DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
LAST = 2**62  # a position beyond any dimension's end


class Node:
    """A node of a graph with its attributes as Python values."""

    def __init__(self, proto: onnx.NodeProto) -> None:
        """Read the attributes."""
        self.operator = proto.op_type
        self.inputs = tuple(proto.input)
        self.outputs = tuple(proto.output)
        self._attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or a default if the node doesn't have it. Text is returned as `str`."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def require(self, name: str, *supported: Any, default: Any = None) -> Any:
        """Return an attribute whose value must be one of those that are supported.

        Raises:
            OperatorError: If it has another value.
        """
        value = self.get(name, default)
        if value not in supported:
            raise OperatorError(f"the operator {self.operator} with {name} = {value!r} can't be differentiated here")
        return value


def _constant(node: Node, inputs: Inputs) -> Tensor:  # noqa: ARG001
    value = node.get("value")
    if value is not None:
        return torch.from_numpy(np.array(numpy_helper.to_array(value)))
    for name, dtype in (("value_float", torch.float32), ("value_int", torch.int64)):
        for form in (name, f"{name}s"):
            if node.get(form) is not None:
                return torch.tensor(node.get(form), dtype=dtype)
    raise OperatorError("a constant that is neither a tensor nor a number can't be differentiated here")


def _numbers(x: Tensor | None) -> list[int]:
    return [] if x is None else [int(n) for n in x.reshape(-1).tolist()]


def _axes(node: Node, inputs: Sequence[Tensor | None], place: int = 1) -> list[int]:
    """Return the axes, which are an attribute in some opsets and an input in others."""
    axes = node.get("axes")
    if axes is not None:
        return list(axes)
    return _numbers(inputs[place]) if len(inputs) > place else []


def _gather(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, index = inputs
    axis = node.get("axis", 0) % x.ndim
    flat = torch.where(index < 0, index + x.shape[axis], index).reshape(-1).long()
    picked = x.index_select(axis, flat.to(x.device))
    return picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _slice(node: Node, inputs: Sequence[Tensor]) -> Tensor:  # noqa: ARG001
    x, starts, ends = inputs[0], _numbers(inputs[1]), _numbers(inputs[2])
    axes = _numbers(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
    steps = _numbers(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(x.shape[axis])[
            slice(start if abs(start) < LAST else None, end if abs(end) < LAST else None, step)
        ]
        if step > 0:
            x = x.narrow(axis, chosen.start, max(0, chosen.stop - chosen.start)) if chosen else x.narrow(axis, 0, 0)
            x = x[(slice(None),) * (axis % x.ndim) + (slice(None, None, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), device=x.device, dtype=torch.int64))
    return x


def _unsqueeze(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    axes = _axes(node, inputs)
    rank = inputs[0].ndim + len(axes)
    x = inputs[0]
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, axes = inputs[0], _axes(node, inputs)
    return x.squeeze(tuple(axis % x.ndim for axis in axes)) if axes else x.squeeze()


def _reshape(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, shape = inputs[0], _numbers(inputs[1])
    if not node.get("allowzero", 0):
        shape = [x.shape[n] if size == 0 else size for n, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x = inputs[0]
    axis = node.get("axis", 1) % (x.ndim + 1)
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


def _expand(node: Node, inputs: Sequence[Tensor]) -> Tensor:  # noqa: ARG001
    x, shape = inputs[0], _numbers(inputs[1])
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))  # type: ignore[no-untyped-call]


def _range(node: Node, inputs: Sequence[Tensor]) -> Tensor:  # noqa: ARG001
    start, limit, delta = (x.item() for x in inputs)
    return torch.arange(start, limit, delta, dtype=inputs[0].dtype, device=inputs[0].device)


def _constant_of_shape(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    value = node.get("value")
    fill = torch.zeros(1) if value is None else torch.from_numpy(np.array(numpy_helper.to_array(value)))
    return fill.to(inputs[0].device).expand(_numbers(inputs[0]))


def _padding(node: Node, x: Tensor, kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return the padding as ONNX writes it: all begins, then all ends."""
    automatic = node.require("auto_pad", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", default="NOTSET")
    if automatic == "NOTSET":
        return list(node.get("pads", [0] * (2 * len(kernel))))
    if automatic == "VALID":
        return [0] * (2 * len(kernel))
    dilations = node.get("dilations", [1] * len(kernel))
    begins, ends = [], []
    for size, side, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (side - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if automatic == "SAME_UPPER" else large)
        ends.append(large if automatic == "SAME_UPPER" else small)
    return begins + ends


def _pad(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the last dimensions, with the padding as ONNX writes it."""
    rank = len(pads) // 2
    flipped = [amount for axis in reversed(range(rank)) for amount in (pads[axis], pads[axis + rank])]
    return functional.pad(x, flipped, value=value) if any(flipped) else x


def _conv(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    rank = weight.ndim - 2
    if rank not in (1, 2):
        raise OperatorError(f"a Conv with {rank} dimensions can't be differentiated here")
    strides = node.get("strides", [1] * rank)
    pads = _padding(node, x, weight.shape[2:], strides)
    equal = pads[:rank] == pads[rank:]
    convolve = functional.conv1d if rank == 1 else functional.conv2d
    return convolve(
        x if equal else _pad(x, pads),
        weight,
        bias,
        stride=strides,
        padding=pads[:rank] if equal else 0,
        dilation=node.get("dilations", [1] * rank),
        groups=node.get("group", 1),
    )


def _conv_transpose(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, weight = inputs[0], inputs[1]
    node.require("auto_pad", "NOTSET", default="NOTSET")
    node.require("output_shape", None)
    pads = node.get("pads", [0, 0, 0, 0])
    full = functional.conv_transpose2d(
        x,
        weight,
        inputs[2] if len(inputs) > 2 else None,
        stride=node.get("strides", [1, 1]),
        output_padding=node.get("output_padding", [0, 0]),
        groups=node.get("group", 1),
        dilation=node.get("dilations", [1, 1]),
    )
    height, width = full.shape[-2:]
    return full[..., pads[0] : height - pads[2], pads[1] : width - pads[3]]


def _pool_padding(node: Node, x: Tensor, value: float) -> tuple[Tensor, list[int], list[int]]:
    """Pad for a pooling, and on the right so far that the last window of `ceil_mode` is whole."""
    kernel, strides = list(node.get("kernel_shape")), list(node.get("strides", [1, 1]))
    node.require("dilations", None, [1, 1])
    pads = _padding(node, x, kernel, strides)
    if node.get("ceil_mode", 0):
        for axis, size in enumerate(x.shape[2:]):
            padded = size + pads[axis] + pads[axis + 2]
            windows = -(-(padded - kernel[axis]) // strides[axis]) + 1
            if (windows - 1) * strides[axis] >= size + pads[axis]:  # it would begin in the padding
                windows -= 1
            pads[axis + 2] += max(0, (windows - 1) * strides[axis] + kernel[axis] - padded)
    return _pad(x, pads, value), kernel, strides


def _max_pool(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    padded, kernel, strides = _pool_padding(node, inputs[0], -torch.inf)
    return functional.max_pool2d(padded, kernel, strides)


def _average_pool(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x = inputs[0]
    padded, kernel, strides = _pool_padding(node, x, 0.0)
    mean = functional.avg_pool2d(padded, kernel, strides)
    if padded.shape == x.shape:
        return mean
    inside = torch.ones_like(x[:1, :1])
    if node.get(
        "count_include_pad", 0
    ):  # the padding that the node asks for counts, the rest of the last window doesn't
        inside = _pad(inside, _padding(node, x, kernel, strides), 1.0)
        inside = functional.pad(
            inside, (0, padded.shape[-1] - inside.shape[-1], 0, padded.shape[-2] - inside.shape[-2])
        )
    else:
        inside, _, _ = _pool_padding(node, inside, 0.0)
    return mean / functional.avg_pool2d(inside, kernel, strides)


def _batch_norm(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, scale, bias, mean, variance = inputs
    return functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=node.get("epsilon", 1e-5))


def _instance_norm(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, scale, bias = inputs
    return functional.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


def _layer_norm(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x = inputs[0]
    axis = node.get("axis", -1) % x.ndim
    bias = inputs[2] if len(inputs) > 2 else None
    return functional.layer_norm(x, x.shape[axis:], inputs[1], bias, node.get("epsilon", 1e-5))


def _gemm(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    a, b = inputs[0], inputs[1]
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    product: Tensor = node.get("alpha", 1.0) * (a @ b)
    return product + node.get("beta", 1.0) * inputs[2] if len(inputs) > 2 else product


def _clip(node: Node, inputs: Sequence[Tensor | None]) -> Tensor:  # noqa: ARG001
    x, *bounds = inputs
    assert x is not None
    low, high = [*bounds, None, None][:2]
    if low is not None:
        x = torch.maximum(x, low.to(x.dtype))
    return x if high is None else torch.minimum(x, high.to(x.dtype))


def _reduction(reduce: Callable[..., Tensor]) -> Operator:
    def run(node: Node, inputs: Sequence[Tensor]) -> Tensor:
        x, axes = inputs[0], _axes(node, inputs)
        if not axes:
            if node.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        return reduce(x, dim=axes, keepdim=bool(node.get("keepdims", 1)))

    return run


def _split(node: Node, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    x, axis = inputs[0], node.get("axis", 0)
    sizes = _numbers(inputs[1]) if len(inputs) > 1 else []
    if not sizes:
        side = -(-x.shape[axis] // len(node.outputs))
        sizes = [min(side, x.shape[axis] - side * n) for n in range(len(node.outputs))]
    return torch.split(x, sizes, dim=axis)


def _pad_node(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    mode = node.require("mode", "constant", "reflect", "edge", default="constant")
    x, pads = inputs[0], _numbers(inputs[1])
    if len(inputs) > 3 and inputs[3] is not None:
        axes = [axis % x.ndim for axis in _numbers(inputs[3])]
        spread = [0] * (2 * x.ndim)
        for place, axis in enumerate(axes):
            spread[axis], spread[axis + x.ndim] = pads[place], pads[place + len(axes)]
        pads = spread
    if mode == "constant":
        value = float(inputs[2].item()) if len(inputs) > 2 and inputs[2] is not None else 0.0
        return _pad(x, pads, value)
    if x.ndim != 4 or any(pads[:2]) or any(pads[4:6]):
        raise OperatorError(f"the operator Pad with mode = {mode!r} can't be differentiated here on other than images")
    sides = (pads[3], pads[7], pads[2], pads[6])
    return functional.pad(x, sides, mode="reflect" if mode == "reflect" else "replicate")


def _resize(node: Node, inputs: Sequence[Tensor | None]) -> Tensor:
    x = inputs[0]
    assert x is not None
    mode = node.require("mode", "nearest", "linear", default="nearest")
    places = node.require(
        "coordinate_transformation_mode",
        "half_pixel",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        default="half_pixel",
    )
    sizes = _numbers(inputs[3]) if len(inputs) > 3 else []
    if not sizes:
        factors = [] if inputs[2] is None else inputs[2].tolist()
        sizes = [int(size * factor) for size, factor in zip(x.shape, factors, strict=True)]
    if x.ndim != 4 or tuple(sizes[:2]) != x.shape[:2]:
        raise OperatorError("a Resize of other than height and width can't be differentiated here")
    if mode == "nearest":
        whole = all(new % old == 0 for new, old in zip(sizes[2:], x.shape[2:], strict=True))
        if places == "align_corners" or not whole:
            raise OperatorError(f"a Resize to the nearest of {places} can't be differentiated here")
        return functional.interpolate(x, sizes[2:], mode="nearest")
    if places == "asymmetric":
        raise OperatorError("a linear Resize with asymmetric coordinates can't be differentiated here")
    return functional.interpolate(x, sizes[2:], mode="bilinear", align_corners=places == "align_corners")


def _grid_sample(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    mode = node.require("mode", "bilinear", "nearest", default="bilinear")
    padding = node.require("padding_mode", "zeros", "border", "reflection", default="zeros")
    return functional.grid_sample(
        inputs[0], inputs[1], mode=mode, padding_mode=padding, align_corners=bool(node.get("align_corners", 0))
    )


def _cum_sum(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    node.require("exclusive", 0, default=0)
    node.require("reverse", 0, default=0)
    return inputs[0].cumsum(int(inputs[1].item()))


def _div(node: Node, inputs: Sequence[Tensor]) -> Tensor:  # noqa: ARG001
    a, b = inputs
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _arg_max(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    return inputs[0].argmax(node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))


def _p_relu(node: Node, inputs: Sequence[Tensor]) -> Tensor:  # noqa: ARG001
    x, slope = inputs
    return torch.where(x < 0, x * slope, x)


def _mod(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    truncates = node.get("fmod", 0)  # the sign is the dividend's; otherwise it is the divisor's
    return torch.fmod(*inputs) if truncates else torch.remainder(*inputs)


def _hard_sigmoid(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    line: Tensor = node.get("alpha", 0.2) * inputs[0] + node.get("beta", 0.5)
    return line.clamp(0, 1)


def _folded(combine: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def run(node: Node, inputs: Sequence[Tensor]) -> Tensor:  # noqa: ARG001
        first, *rest = inputs
        for x in rest:
            first = combine(first, x)
        return first

    return run


def _simple(function: Callable[..., Tensor]) -> Operator:
    """Make an operator of a function that takes the inputs and no attributes."""
    return lambda _, inputs: function(*inputs)


OPERATORS: dict[str, Operator] = {
    "Abs": _simple(torch.abs),
    "Add": _simple(torch.add),
    "And": _simple(torch.logical_and),
    "ArgMax": _arg_max,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda node, inputs: inputs[0].to(DTYPES[node.require("to", *DTYPES)]),
    "Ceil": _simple(torch.ceil),
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat(tuple(inputs), dim=node.get("axis")),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "CumSum": _cum_sum,
    "Div": _div,
    "Elu": lambda node, inputs: functional.elu(inputs[0], node.get("alpha", 1.0)),
    "Equal": _simple(torch.eq),
    "Erf": _simple(torch.erf),
    "Exp": _simple(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _simple(torch.floor),
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, inputs: inputs[0].mean(dim=(-2, -1), keepdim=True),
    "Greater": _simple(torch.gt),
    "GreaterOrEqual": _simple(torch.ge),
    "GridSample": _grid_sample,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _simple(functional.hardswish),
    "Identity": lambda _, inputs: inputs[0],
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, inputs: functional.leaky_relu(inputs[0], node.get("alpha", 0.01)),
    "Less": _simple(torch.lt),
    "LessOrEqual": _simple(torch.le),
    "Log": _simple(torch.log),
    "LogSoftmax": lambda node, inputs: functional.log_softmax(inputs[0], node.get("axis", -1)),
    "MatMul": _simple(torch.matmul),
    "Max": _folded(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _folded(torch.minimum),
    "Mod": _mod,
    "Mul": _simple(torch.mul),
    "Neg": _simple(torch.neg),
    "Not": _simple(torch.logical_not),
    "Or": _simple(torch.logical_or),
    "PRelu": _p_relu,
    "Pad": _pad_node,
    "Pow": lambda _, inputs: torch.pow(inputs[0], inputs[1]).to(inputs[0].dtype),
    "Range": _range,
    "Reciprocal": _simple(torch.reciprocal),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _simple(functional.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Round": _simple(torch.round),
    "Shape": lambda node, inputs: torch.tensor(
        inputs[0].shape[node.get("start", 0) : node.get("end")], device=inputs[0].device
    ),
    "Sigmoid": _simple(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda node, inputs: torch.softmax(inputs[0], node.get("axis", -1)),
    "Softplus": _simple(functional.softplus),
    "Split": _split,
    "Sqrt": _simple(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _simple(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _simple(torch.tanh),
    "Tile": lambda _, inputs: inputs[0].repeat(_numbers(inputs[1])),
    "Transpose": lambda node, inputs: inputs[0].permute(node.get("perm") or tuple(reversed(range(inputs[0].ndim)))),
    "Unsqueeze": _unsqueeze,
    "Where": _simple(torch.where),
}
