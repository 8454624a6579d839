"""The constants of a model file, wherever they are stored, and their conversion to 32-bit floats.

Data outside the file must be regular files inside the folder of the model, without any `..` or link on the way.
"""

import stat
from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath

import onnx
from onnx import GraphProto, NodeProto, TensorProto, external_data_helper, helper, numpy_helper

from keywarp.importing.errors import ImportingError

MAX_BYTES = 2**31 - 2**26  # of all constants: protocol buffers end at 2 GiB
HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
TYPE_ATTRIBUTES = ("to", "dtype")  # attributes that hold an element type


def graphs_of(model: onnx.ModelProto) -> Iterator[GraphProto]:
    """Yield a model's graph and, depth first, the graphs inside of its nodes."""

    def inside(nodes: Iterator[NodeProto]) -> Iterator[GraphProto]:
        for node in nodes:
            for attribute in node.attribute:
                for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                    yield graph
                    yield from inside(iter(graph.node))

    yield model.graph
    yield from inside(iter(model.graph.node))
    for function in model.functions:
        yield from inside(iter(function.node))


def nodes_of(model: onnx.ModelProto) -> Iterator[NodeProto]:
    """Yield all nodes of a model, those of graphs inside of nodes and of functions included."""
    for graph in graphs_of(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield all constants of a model."""
    for graph in graphs_of(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes_of(model):
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for sparse in (
                *attribute.sparse_tensors,
                *([attribute.sparse_tensor] * attribute.HasField("sparse_tensor")),
            ):
                yield from (sparse.values, sparse.indices)


def load_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Read the constants that are stored outside of the model file into it.

    Args:
        model: The model.
        folder: The folder of its file.

    Raises:
        ImportingError: If a constant is outside the folder, isn't there or doesn't have the size of its shape, or if
            all of them are too large.
    """
    total = 0
    for tensor in tensors_of(model):
        size = size_of(tensor)
        total += size
        if total > MAX_BYTES:
            raise ImportingError(
                f"the constants take more than {MAX_BYTES / 1e9:.1f} GB in all ({tensor.name!r}: {size / 1e9:.3g}"
                " GB), more than an ONNX file can hold: use a smaller network"
            )
        if external_data_helper.uses_external_data(tensor):
            _load(tensor, size, folder)
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != size:
            raise ImportingError(
                f"constant {tensor.name!r} of shape {list(tensor.dims)} needs {size} bytes, but has "
                f"{len(tensor.raw_data)}: the file is damaged"
            )


def size_of(tensor: TensorProto) -> int:
    """Return the bytes of a constant, by its shape and type.

    Raises:
        ImportingError: If the shape or type is impossible.
    """
    if any(side < 0 for side in tensor.dims):
        raise ImportingError(
            f"constant {tensor.name!r} has the impossible shape {list(tensor.dims)}: the file is damaged"
        )
    try:
        itemsize = int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError:
        raise ImportingError(f"constant {tensor.name!r} has the unknown type {tensor.data_type}") from None
    count: int = prod(tensor.dims)
    name = TensorProto.DataType.Name(tensor.data_type)
    if name.endswith(("INT4", "FLOAT4E2M1")):  # two to a byte
        return (count + 1) // 2
    return (count + 3) // 4 if name.endswith("INT2") else count * itemsize


def _load(tensor: TensorProto, size: int, folder: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    path = _inside(location, folder)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise ImportingError(f"constant {tensor.name!r} has no valid place in {location!r}") from None
    if length != size or offset < 0 or offset + length > path.stat().st_size:
        raise ImportingError(
            f"constant {tensor.name!r} of {size} bytes isn't in {location!r}, which has {path.stat().st_size} bytes: "
            "the file is damaged, or belongs to another model"
        )
    with path.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _inside(location: str, folder: Path) -> Path:
    """Return the path of a file with constants, if it is a regular file below the model's folder."""
    parts = PurePosixPath(location.replace("\\", "/")).parts
    outside = ImportingError(
        f"the constants in {location!r} are outside the model's folder: copy them beside the model, and save it again"
    )
    if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or "\0" in location:
        raise outside
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise outside
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ImportingError(
            f"{location!r} with the model's constants can't be read ({error.strerror}): put it beside the model"
        ) from None
    if not stat.S_ISREG(mode):
        raise outside
    return path


def type_name(value: int) -> str:
    """Return the name of an element type, which a damaged file may have made up."""
    return TensorProto.DataType.Name(value).lower() if value in TensorProto.DataType.values() else str(value)


def uses_half(model: onnx.ModelProto) -> bool:
    """Return whether any constant, input or output is a 16-bit float."""
    values = (value for graph in graphs_of(model) for value in (*graph.input, *graph.output))
    return any(tensor.data_type in HALF for tensor in tensors_of(model)) or any(
        value.type.tensor_type.elem_type in HALF for value in values
    )


def to_float32(model: onnx.ModelProto) -> None:
    """Make all 16-bit floats of a model 32-bit floats, in place: constants, types of tensors and casts."""
    for tensor in tensors_of(model):
        if tensor.data_type in HALF:
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for graph in graphs_of(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in HALF:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in nodes_of(model):
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i in HALF:
                attribute.i = TensorProto.FLOAT
