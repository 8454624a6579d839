"""A graph in fp16: TensorRT's strongly typed networks compute every node in the type that its inputs have."""

import onnx
from onnx import TensorProto, helper

from keywarp.engines.backends.warping import find_warps, in_order, needed
from keywarp.engines.errors import BackendError


def to_half(model: onnx.ModelProto, resident: frozenset[str]) -> onnx.ModelProto:
    """Convert what computes in fp32 to fp16.

    The coordinates of a warp that is left to GridSample stay in fp32: fp16 can't tell the cells of a wide map apart.
    What is quantised stays int8, with scales in fp16: a Cast between it and a convolution would keep TensorRT from
    joining them.

    Args:
        model: Plain (see `warping.plain`); it stays as it is.
        resident: Outputs that stay on the device. They become fp16, and all inputs of type float; other outputs don't.

    Raises:
        BackendError: ONNX Runtime, whose converter this uses, isn't installed.
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
    # The converter makes a Cast for each reader of a tensor, all of one name, and puts them at the end.
    nodes = {node.output[0]: node for node in converted.graph.node}
    _unround(nodes)
    known = {value.name for value in (*converted.graph.input, *converted.graph.initializer)}
    ends = {value.name for value in converted.graph.output}
    del converted.graph.node[:]
    converted.graph.node.extend(needed(in_order(list(nodes.values()), known), ends))
    return converted


def _unround(nodes: dict[str, onnx.NodeProto]) -> None:
    """Let neighbours that stay in fp32 exchange fp32: the converter rounds between them."""
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
