"""Convert graphs to fp16, since TensorRT's strongly typed networks compute each node in the type of its inputs."""

import onnx
from onnx import TensorProto, helper

from keywarp.engines.backends.warping import find_warps, prune_unused, topological_order
from keywarp.engines.errors import BackendError


def to_half(model: onnx.ModelProto, resident: frozenset[str]) -> onnx.ModelProto:
    """Convert a graph from fp32 to fp16.

    If a warp remains a GridSample, its coordinates stay in fp32, because fp16 can't distinguish the cells of a wide
    map. Quantised parts stay int8, with scales in fp16: a Cast between them and a convolution would keep TensorRT from
    fusing the two.

    Args:
        model: A graph from `simplify`. It isn't changed.
        resident: The names of the outputs that stay on the device. They and all float inputs become fp16; the other
            outputs stay as they are.

    Raises:
        BackendError: If ONNX Runtime isn't installed, whose converter this uses.
    """
    try:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    except ImportError as error:
        raise BackendError(
            f"fp16 needs ONNX Runtime's converter ({error}): install the extra `gpu` (README, Install)"
        ) from error
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [o.name for o in model.graph.output if o.name not in resident]
    exact = {tensor for warp in find_warps(model) for tensor in warp.grid}
    converted: onnx.ModelProto = convert_float_to_float16(
        copy,
        keep_io_types=kept,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, "GridSample"],
        node_block_list=[node.name for node in model.graph.node if exact.intersection(node.output)],
    )
    # The converter makes a Cast for each reader of a tensor, all with the same name, and appends them at the end.
    nodes = {node.output[0]: node for node in converted.graph.node}
    _skip_rounding(nodes)
    known = {value.name for value in (*converted.graph.input, *converted.graph.initializer)}
    outputs = {value.name for value in converted.graph.output}
    del converted.graph.node[:]
    converted.graph.node.extend(prune_unused(topological_order(list(nodes.values()), known), outputs))
    return converted


def _skip_rounding(nodes: dict[str, onnx.NodeProto]) -> None:
    """Remove the converter's rounding to fp16 between neighbours that both stay in fp32."""
    for node in nodes.values():
        for place, name in enumerate(node.input):
            widened = nodes.get(name)
            if widened is None or not _casts(widened, TensorProto.FLOAT):
                continue
            rounded = nodes.get(widened.input[0])
            if rounded is not None and _casts(rounded, TensorProto.FLOAT16) and rounded.name.endswith("_fp16_node"):
                node.input[place] = rounded.input[0]


def _casts(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == kind
