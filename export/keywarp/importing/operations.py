"""The operations of a graph's nodes, by the rules of `keywarp.networks.complexity`.

A multiply-add counts as two operations. Convolutions, deconvolutions and matrix products are counted, attention thus as
its two products. Activations, normalisation, pooling and resampling aren't, since they cost little by comparison.
"""

from math import prod

import onnx

from keywarp.importing.graph import Graph


def operations_of(graph: Graph, node: onnx.NodeProto) -> int:
    """Count the operations of one node; 0 if a shape depends on the image's content.

    Args:
        graph: The node's graph, with shapes.
        node: The node.
    """
    shapes = [graph.shapes.get(name, (-1,)) for name in (*node.input, *node.output) if name]
    if any(side < 0 for shape in shapes for side in shape):
        return 0
    inputs = [graph.shapes[name] for name in node.input if name]
    output = graph.shapes[node.output[0]]
    match node.op_type:
        case "Conv" | "ConvInteger" | "DeformConv":  # weights (C_out, C_in / groups, kernel)
            return 2 * prod(output) * prod(inputs[1][1:])
        case "QLinearConv":
            return 2 * prod(output) * prod(inputs[3][1:])
        case "ConvTranspose":  # weights (C_in, C_out / groups, kernel): each input value is multiplied by all of them
            return 2 * prod(inputs[0]) * prod(inputs[1][1:])
        case "Gemm":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            return 2 * prod(output) * inputs[0][0 if transposed else 1]
        case "MatMul" | "MatMulInteger" | "QLinearMatMul":
            return 2 * prod(output) * inputs[0][-1]
        case "Einsum":
            return _einsum(node, inputs)
        case "LSTM" | "GRU" | "RNN":  # weights (directions, gates x hidden, inputs) at each step of each sequence
            return 2 * inputs[0][0] * inputs[0][1] * (prod(inputs[1]) + prod(inputs[2]))
    return 0


def _einsum(node: onnx.NodeProto, inputs: list[tuple[int, ...]]) -> int:
    """Count an Einsum as one product over all its indices; 0 if it has one operand, which is only rearranged."""
    equation = next(attribute.s for attribute in node.attribute if attribute.name == "equation")
    terms = equation.decode().replace(" ", "").split("->")[0].split(",")
    if len(terms) < 2 or "." in "".join(terms):
        return 0
    sides: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        sides.update(zip(term, shape, strict=True))
    return 2 * prod(sides.values())


def total_operations(graph: Graph) -> int:
    """Count the operations of all nodes."""
    return sum(operations_of(graph, node) for node in graph.nodes)
