"""A bundle's graph as a torch module: its weights can be trained, and go back into the same graph.

A bundle has no PyTorch code, only graphs. Whatever network a graph came from, it stays the graph it was: training
changes the numbers in its initializers, and nothing else.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from keywarp.adaptation.errors import OperatorError
from keywarp.adaptation.operators import OPERATORS, Node

WEIGHTED = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1)}  # inputs that may be weights
LARGEST_HALF = float(np.finfo(np.float16).max)


class TorchGraph(nn.Module):
    """An ONNX graph that computes, and is differentiated, in PyTorch.

    The weights and biases of its convolutions and matrix products are parameters, in 32 bits also where the file has
    16. All other numbers are fixed.
    """

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        """Read a graph.

        Args:
            model: The graph, which isn't changed.
            name: The name for error messages, such as the path of its file.

        Raises:
            OperatorError: If it has an operator that isn't supported. The text names them all.
        """
        super().__init__()
        self._model = model = _with_own_copies(model)
        self._nodes = [Node(proto) for proto in model.graph.node]
        unknown = sorted({node.operator for node in self._nodes} - set(OPERATORS))
        if unknown:
            raise OperatorError(f"{name} can't be differentiated: it has the operators {', '.join(unknown)}")
        self._outputs = [value.name for value in model.graph.output]
        initializers = {proto.name: proto for proto in model.graph.initializer}
        # A weight of 16 bits is followed by a Cast, which is skipped: the parameter has 32 bits already.
        self._widened = {
            node.outputs[0]: node.inputs[0]
            for node in self._nodes
            if node.operator == "Cast" and node.inputs[0] in initializers and node.get("to") == TensorProto.FLOAT
        }
        self._steps = [node for node in self._nodes if node.outputs[0] not in self._widened]
        weights = self._weight_names(set(initializers))
        self._parameters_by_tensor: dict[str, nn.Parameter] = {}
        self._buffers_by_tensor: dict[str, str] = {}
        for number, (tensor, proto) in enumerate(initializers.items()):
            value = torch.from_numpy(np.array(numpy_helper.to_array(proto)))
            if tensor in weights and value.is_floating_point():
                parameter = nn.Parameter(value.float())
                self.register_parameter(_attribute(tensor), parameter)
                self._parameters_by_tensor[tensor] = parameter
            else:
                self._buffers_by_tensor[tensor] = f"constant_{number}"
                wide = tensor in self._widened.values()
                self.register_buffer(f"constant_{number}", value.float() if wide else value, persistent=False)
        self._last_use = self._find_last_uses()

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            inputs: The inputs by the graph's names.

        Returns:
            The outputs by the graph's names.

        Raises:
            OperatorError: If an operator is used in a way that isn't supported.
        """
        values: dict[str, Tensor] = dict(inputs)
        for tensor in (*self._parameters_by_tensor, *self._buffers_by_tensor):
            values[tensor] = self._stored(tensor)
        for wide, narrow in self._widened.items():
            values[wide] = self._stored(narrow)
        device = next(iter(inputs.values())).device
        for place, node in enumerate(self._steps):
            found = [values[name] if name else None for name in node.inputs]
            result = OPERATORS[node.operator](node, found)
            if node.operator == "Constant":
                assert isinstance(result, Tensor)
                result = result.to(device)
            results = (result,) if isinstance(result, Tensor) else result
            values.update(zip(node.outputs, results, strict=False))
            for name in self._last_use.get(place, ()):  # so that tensors live no longer than needed
                values.pop(name, None)
        return {name: values[name] for name in self._outputs}

    def model(self) -> onnx.ModelProto:
        """Return the graph with the present weights, in the precision of the graph that was read.

        Weights of 16 bits are rounded in this module too, so that module and graph stay equal. One that is too large
        for 16 bits becomes the largest that isn't.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        for proto in model.graph.initializer:
            parameter = self._parameters_by_tensor.get(proto.name)
            if parameter is None:
                continue
            if proto.data_type == TensorProto.FLOAT16:
                with torch.no_grad():
                    parameter.copy_(parameter.clamp(-LARGEST_HALF, LARGEST_HALF).half().float())
            dtype = np.float16 if proto.data_type == TensorProto.FLOAT16 else np.float32
            proto.CopyFrom(numpy_helper.from_array(parameter.detach().cpu().numpy().astype(dtype), proto.name))
        return model

    def _stored(self, tensor: str) -> Tensor:
        parameter = self._parameters_by_tensor.get(tensor)
        if parameter is not None:
            return parameter
        constant: Tensor = getattr(self, self._buffers_by_tensor[tensor])
        return constant

    def _weight_names(self, initializers: set[str]) -> set[str]:
        """Return the initializers that are weights or biases, directly or through a Cast.

        PyTorch names them so. If it did, others are constants, even where a convolution takes one.
        """
        used = {
            node.inputs[place]
            for node in self._steps
            for place in WEIGHTED.get(node.operator, ())
            if place < len(node.inputs)
        }
        found = {self._widened.get(tensor, tensor) for tensor in used} & initializers
        named = {tensor for tensor in found if tensor.removesuffix(".half").endswith(("weight", "bias"))}
        return named or found

    def _find_last_uses(self) -> Mapping[int, list[str]]:
        last: dict[str, int] = {}
        for place, node in enumerate(self._steps):
            last.update(dict.fromkeys((*node.inputs, *node.outputs), place))
        uses: dict[int, list[str]] = {}
        for tensor, place in last.items():
            if tensor not in self._outputs:
                uses.setdefault(place, []).append(tensor)
        return uses

    def _apply(self, fn: Any, recurse: bool = True) -> "TorchGraph":
        """Move the parameters as `nn.Module` does, and keep hold of them."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        own = dict(self.named_parameters())
        self._parameters_by_tensor = {tensor: own[_attribute(tensor)] for tensor in self._parameters_by_tensor}
        return self


def _with_own_copies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph in which each weight is an initializer of its own.

    PyTorch's exporter stores equal initializers, such as the zeros of new biases, once, and adds an Identity for each
    further use. Training must be able to tell them apart.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    initializers = {proto.name: proto for proto in graph.initializer}
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.input[0] in initializers}
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        source = node.input[0] if node.op_type == "Identity" and node.output[0] not in outputs else ""
        cast = casts.get(source)
        original = initializers.get(source if cast is None else cast.input[0])
        if original is None:
            kept.append(node)
            continue
        copy = graph.initializer.add()
        copy.CopyFrom(original)
        copy.name = node.output[0] if cast is None else f"{node.output[0]}.half"
        initializers[copy.name] = copy
        if cast is not None:
            own = onnx.NodeProto()
            own.CopyFrom(cast)
            own.name, own.input[0], own.output[0] = f"{copy.name}.cast", copy.name, node.output[0]
            casts[node.output[0]] = own
            kept.append(own)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _attribute(tensor: str) -> str:
    """Return the name of a parameter: `conv1.0.weight.half` becomes `conv1/0/weight`."""
    return tensor.removesuffix(".half").replace(".", "/")
