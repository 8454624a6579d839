"""Which tensors of a graph become 8 bits wide.

Between two quantised layers a tensor stays in 8 bits, also through operators that runtimes have in int8. Around a layer
that stays in fp32, and where no such operator follows, tensors are exact: a pair of QuantizeLinear and DequantizeLinear
there would lose accuracy for nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # operators that are quantised, if their weights are constant
# Operators between layers that run in int8 as well. ReLU then costs nothing: the range of what it gives does the same.
BETWEEN = ("Relu", "Clip", "Add", "MaxPool")
_PASSING = ("Relu", "Clip", "MaxPool")  # those with one input, whose range is about that of their output


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a graph is quantised."""

    between: frozenset[str]  # names of the operators between layers that run in int8
    exact: frozenset[str]  # tensors that only quantised layers may read in 8 bits


def place(model: onnx.ModelProto, layers: Sequence[str], chosen: Collection[str]) -> Placement:
    """Decide where a graph is quantised.

    Args:
        model: The graph.
        layers: The names of all layers that could be quantised.
        chosen: The names of those that are.
    """
    nodes = {node.name: node for node in model.graph.node}
    producers = {output: node for node in model.graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    exact: set[str] = set()
    for layer in layers:
        if layer in chosen:
            continue
        source = nodes[layer].input[0]
        exact |= {source, nodes[layer].output[0]}
        while (producer := producers.get(source)) is not None and producer.op_type in _PASSING:
            source = producer.input[0]
            exact.add(source)
    between = {
        node.name
        for node in model.graph.node
        if node.op_type in BETWEEN and not exact.intersection((*node.input, *node.output))
    }

    def fits(node: onnx.NodeProto) -> bool:
        """Whether all that an operator reads comes from, and something that it gives goes to, a part in int8."""
        inputs = node.input if node.op_type == "Add" else node.input[:1]
        sources = [producers.get(name) for name in inputs]
        inside = {*chosen, *between}
        return all(s is not None and s.name in inside for s in sources) and any(
            reader.name in inside for reader in readers[node.output[0]]
        )

    while unfit := {name for name in between if not fits(nodes[name])}:
        between -= unfit
    inside = {*chosen, *between}
    exact |= {
        nodes[layer].output[0]
        for layer in chosen
        if not any(reader.name in inside for reader in readers[nodes[layer].output[0]])
    }
    return Placement(frozenset(between), frozenset(exact))


def keep_exact(model: onnx.ModelProto, exact: Collection[str], chosen: Collection[str]) -> None:
    """Make all nodes but quantised layers read tensors as they are, in place.

    Args:
        model: A graph from ONNX Runtime's quantiser, in which all nodes read a tensor in 8 bits if one of them does.
        exact: The names of the tensors.
        chosen: The names of the quantised layers.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    outputs = {output.name for output in model.graph.output}
    wide: dict[str, str] = {}  # exact tensors by the name of what was made of them
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        pair = producers.get(node.input[0])
        if pair is None or pair.op_type != "QuantizeLinear":
            continue
        given = node.output[0]
        if given in outputs and given in exact:  # the quantiser gave another name to what its producer gives
            before, narrow = pair.input[0], f"{given}_in_8_bits"
            producers[before].output[:] = [given if o == before else o for o in producers[before].output]
            pair.input[0], node.output[0] = given, narrow
            for reader in model.graph.node:
                if reader.name in chosen:
                    reader.input[:] = [narrow if name == given else name for name in reader.input]
        elif pair.input[0] in exact:
            wide[given] = pair.input[0]
    for node in model.graph.node:
        if node.name not in chosen:
            node.input[:] = [wide.get(name, name) for name in node.input]
    _prune(model)


def _prune(model: onnx.ModelProto) -> None:
    """Remove the nodes whose results nothing reads."""
    outputs = {output.name for output in model.graph.output}
    while True:
        used = outputs | {name for node in model.graph.node for name in node.input}
        kept = [node for node in model.graph.node if used.intersection(node.output)]
        if len(kept) == len(model.graph.node):
            return
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(copies)
