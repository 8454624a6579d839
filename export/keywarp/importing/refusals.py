"""What is refused in a model file before any runtime sees it."""

from collections import Counter
from collections.abc import Iterable

import onnx
from onnx import TensorProto, defs

from keywarp.importing.errors import ImportingError
from keywarp.importing.tensors import graphs_of, nodes_of, tensors_of, type_name

MAX_NODES = 100_000  # once all functions are written out
LONGEST_NAME = 1000  # characters
SHOWN = 40  # characters of a name in an error
DOMAINS = ("", "ai.onnx")
NUMBERS = (
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.BOOL),
    *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
)


def refuse_hostile(model: onnx.ModelProto) -> None:
    """Refuse names that can't be shown or are there twice, too many nodes, unknown opsets, and odd results.

    Args:
        model: The model as it is in the file.

    Raises:
        ImportingError: If there are any.
    """
    _refuse_names(model)
    count = written_out(model)
    if count > MAX_NODES:
        raise ImportingError(f"it has {_rounded(count)} nodes, and at most {MAX_NODES} are read")
    for opset in model.opset_import:
        if opset.domain in DOMAINS and not 1 <= opset.version <= defs.onnx_opset_version():
            raise ImportingError(
                f"its opset is {opset.version}, and the newest known here is {defs.onnx_opset_version()}: "
                "export the network again with opset 17"
            )
    made = Counter(name for node in model.graph.node for name in node.output if name)
    if twice := [name for name, count in made.items() if count > 1]:
        raise ImportingError(f"two of its nodes make a tensor {twice[0]!r}: the file is damaged")
    if not model.graph.output:
        raise ImportingError("it has no outputs")
    for output in model.graph.output:
        if output.type.WhichOneof("value") not in (None, "tensor_type"):
            raise ImportingError(f"its output {output.name!r} isn't a tensor: export the network again without it")
        if output.type.tensor_type.elem_type not in (*NUMBERS, TensorProto.UNDEFINED):
            raise ImportingError(
                f"its output {output.name!r} is of type {type_name(output.type.tensor_type.elem_type)}: export the "
                "network again without it"
            )


def written_out(model: onnx.ModelProto) -> int:
    """Return how many nodes a model has once its functions are written out where they are called.

    Functions that call themselves are counted once; ONNX's checker refuses them.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    counts: dict[tuple[str, str], int] = {}

    def count(nodes: Iterable[onnx.NodeProto], open_calls: frozenset[tuple[str, str]]) -> int:
        total = 0
        for key, calls in Counter((node.domain, node.op_type) for node in nodes).items():
            if key not in functions or key in open_calls:
                total += calls
                continue
            if key not in counts:
                inner = onnx.ModelProto()
                inner.graph.node.extend(functions[key].node)
                counts[key] = count(nodes_of(inner), open_calls | {key})
            total += calls * counts[key]
        return total

    return count((node for graph in graphs_of(model) for node in graph.node), frozenset())


def _refuse_names(model: onnx.ModelProto) -> None:
    for name in _names(model):
        # Protocol buffers give strings that aren't UTF-8 as bytes.
        if isinstance(name, bytes) or not name.isprintable() or len(name) > LONGEST_NAME:
            raise ImportingError(f"it has the name {name[:SHOWN]!r}, which can't be shown: rename it")
    for entry in model.metadata_props:
        if isinstance(entry.key, bytes) or isinstance(entry.value, bytes):
            raise ImportingError("its metadata aren't UTF-8: the file is damaged")


def _names(model: onnx.ModelProto) -> Iterable[str | bytes]:
    """Yield all names that an error or a table may show."""
    yield from (model.producer_name, model.producer_version)
    yield from (opset.domain for opset in model.opset_import)
    for function in model.functions:
        yield from (function.domain, function.name, *function.input, *function.output, *function.attribute)
    for graph in graphs_of(model):
        yield graph.name
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield value.name
            yield from (side.dim_param for side in value.type.tensor_type.shape.dim)
    for tensor in tensors_of(model):
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for node in nodes_of(model):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _rounded(count: int) -> str:
    return str(count) if count < 10**9 else f"more than {10**9}"
