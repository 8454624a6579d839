"""A network as it comes in an ONNX file, brought into one form: 32-bit floats, one size, constants folded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, inliner

from keywarp.importing.bounded import run_bounded
from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import IMAGE, Graph, sort_nodes
from keywarp.importing.inputs import (
    ImageInput,
    choose_size,
    extra_value,
    find_image,
    real_inputs,
    settle_inputs,
)
from keywarp.importing.opsets import DOMAINS, convert_opset, opset_of
from keywarp.importing.picture import picture
from keywarp.importing.refusals import refuse_hostile
from keywarp.importing.runtime import first_line, fold, run
from keywarp.importing.tensors import MAX_BYTES, load_external_data, nodes_of, to_float32, uses_half

MAX_SECONDS = 1800.0  # for each step; the longest measures a few hundred maps of a large network
BASE_MEMORY = 8 * 2**30  # bytes, for the runtimes and the network's own tensors
MEMORY_PER_BYTE = 16  # of the file: copies of its constants
TOLERANCE = 1e-3  # largest difference from the file's own results, as a share of the largest value
HALF_TOLERANCE = 5e-2  # the same for files of 16-bit floats
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's name, shape and type. A dimension that depends on the image's content is -1."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class ImportedModel:
    """A network from a file, for images of one size.

    Attributes:
        model: The network: 32-bit floats, batch 1, opset 16 to 19, constants folded, shapes of all tensors known. Its
            input is the image, float (1, 3, height, width), named `image`.
        height: The image's height in pixels.
        width: The image's width in pixels.
        outputs: The file's own outputs.
        metadata: The file's metadata, in which exporters put class names, strides and the task.
        producer: The exporter's name and version.
        bytes_in: Whether the file takes bytes. The image's values are then from 0 to 255.
        image_name: The name that the file gives to the image.
        weight_names: The parts of the names of its weights between dots, such as `dpt` of `dpt.neck.weight`.
    """

    model: onnx.ModelProto
    height: int
    width: int
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    producer: str
    bytes_in: bool = False
    image_name: str = ""
    weight_names: frozenset[str] = frozenset()


def read_model(path: Path, size: tuple[int, int] | None = None, max_seconds: float = MAX_SECONDS) -> ImportedModel:
    """Read an ONNX file in a process of its own, with bounds on memory and time.

    Inputs (N, H, W, 3) and of bytes, files of 16-bit floats and of other opsets are converted. The result is run once
    beside the file itself, and must give the same.

    Args:
        path: The file. Constants may be in other files of its folder.
        size: The height and width of the image in pixels. By default they are the file's own, or 640 where it takes
            any.
        max_seconds: The most time.

    Raises:
        ImportingError: If the file can't be read or the network can't be imported; the message says why.
    """
    try:
        stored = path.stat().st_size
    except OSError as error:
        raise ImportingError(f"{path} can't be read: {error.strerror}") from None
    if not path.is_file():
        raise ImportingError(f"{path} isn't a file: give the path of a model's .onnx file")
    if stored > MAX_BYTES:
        raise ImportingError(f"{path} has {stored / 1e9:.1f} GB, but an ONNX file has at most {MAX_BYTES / 1e9:.1f}")
    try:
        return run_bounded(_read, path.resolve(), size, memory=usual_memory(path), seconds=max_seconds)
    except ImportingError as error:
        raise ImportingError(f"{path.name} can't be imported: {error}") from error


def usual_memory(path: Path) -> int:
    """Return the bytes of memory that a file's network may take to be read, measured and checked.

    It grows with the file, since several copies of its constants are in memory at one time.
    """
    try:
        stored = path.stat().st_size
    except OSError:  # which reading it will report
        stored = 0
    return BASE_MEMORY + MEMORY_PER_BYTE * (min(stored, MAX_BYTES) + _beside(path))


def _beside(path: Path) -> int:
    """Return the bytes in files beside a model that may hold its constants, up to what is accepted."""
    try:
        files = [p.stat().st_size for p in path.parent.iterdir() if p.is_file() and p.suffix in (".data", ".bin", "")]
    except OSError:
        return 0
    return min(sum(files), MAX_BYTES)


def _read(path: Path, size: tuple[int, int] | None) -> ImportedModel:
    """Read a file in this process."""
    original = load_supported(path)
    metadata = {entry.key: entry.value for entry in original.metadata_props}

    half = uses_half(original)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    if half:
        to_float32(model)
    image = find_image(real_inputs(model))
    height, width = choose_size(image, size, metadata)
    settle_inputs(model, image, height, width)
    converted = convert_opset(fold(model))
    if opset_of(converted) != opset_of(model):
        converted = fold(converted)
    _check_folded(converted)

    feed = picture(height, width) * (255 if image.dtype == TensorProto.UINT8 else 1)
    results = run(converted, {IMAGE: feed})
    try:
        expected = run(_fixed(original, image, height, width), _feeds(original, image, feed))
    except ImportingError:
        if not half:  # whose operators ONNX Runtime doesn't always have for 16-bit floats
            raise
    else:
        _compare(expected, results, HALF_TOLERANCE if half else TOLERANCE)
    _refuse_nan(results)
    _give_ranks(converted, results)
    graph = Graph(converted)
    producer = f"{original.producer_name} {original.producer_version}".strip()
    return ImportedModel(
        converted,
        height,
        width,
        tuple(_spec(graph, name, results[name]) for name in graph.outputs),
        metadata,
        producer,
        image.dtype == TensorProto.UINT8,
        image.name,
        frozenset(part for tensor in original.graph.initializer for part in tensor.name.split(".")),
    )


def load_supported(path: Path) -> onnx.ModelProto:
    """Load a file, and check all that can be checked without a runtime.

    Args:
        path: The file.

    Returns:
        The file's own network, with all constants, without functions, and with its nodes in order.

    Raises:
        ImportingError: If it is damaged, or something in it isn't supported.
    """
    model = _load(path)
    _refuse_unsupported(model)
    return inliner.inline_local_functions(model) if model.functions else model


def _load(path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception:  # noqa: BLE001 - protobuf's errors have no common public base class
        raise ImportingError("it isn't an ONNX file, or it is damaged") from None
    if not model.graph.node:
        raise ImportingError("it isn't an ONNX file, or it has no nodes")
    refuse_hostile(model)
    load_external_data(model, path.parent)
    return model


def _refuse_unsupported(model: onnx.ModelProto) -> None:
    own = {function.domain for function in model.functions}
    nodes = list(nodes_of(model))
    custom = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in {*DOMAINS, *own}}
    if custom:
        names = ", ".join(sorted(custom)[:5])
        raise ImportingError(
            f"it uses {names}, which {'is no operator' if len(custom) == 1 else 'are no operators'} of standard ONNX: "
            "export it without a runtime's own operators or plugins"
        )
    for opset in model.opset_import:
        opset.domain = "" if opset.domain in DOMAINS else opset.domain
    for node in nodes:
        node.domain = "" if node.domain in DOMAINS else node.domain
    opset_of(model)
    sort_nodes(model.graph)
    types = [value.type.tensor_type for value in model.graph.output]
    shapeless = [tensor_type for tensor_type in types if not tensor_type.HasField("shape")]
    for tensor_type in shapeless:
        tensor_type.shape.SetInParent()  # the checker wants one, although files do without
    try:
        checker.check_model(model)
    except Exception as error:  # noqa: BLE001 - ValidationError, and others of the checker's C++
        raise ImportingError(f"it isn't a valid ONNX file: {first_line(error)}") from None
    for tensor_type in shapeless:
        tensor_type.ClearField("shape")


def _check_folded(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    for node in graph.nodes:
        if node.domain:
            raise ImportingError(f"its constants can't be folded without the operator {node.domain}.{node.op_type}")
    if graph.moving.isdisjoint(graph.outputs):
        raise ImportingError("its results don't depend on the image")


def _fixed(model: onnx.ModelProto, image: ImageInput, height: int, width: int) -> onnx.ModelProto:
    """Return a copy of a file's own network whose image has one size."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name == image.name:
            dtype = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(image.name, dtype, image.shape(height, width)))
    return fixed


def _feeds(model: onnx.ModelProto, image: ImageInput, feed: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return the inputs of a file's own network for an image."""
    height, width = feed.shape[2:]
    feeds: dict[str, NDArray[Any]] = {}
    for value in real_inputs(model):
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        is_image = value.name == image.name
        feeds[value.name] = image.feed(feed).astype(dtype) if is_image else extra_value(value, height, width)
    return feeds


def _compare(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]], tolerance: float) -> None:
    """Check that two runs gave the same, up to the order of nearly equal scores.

    Raises:
        ImportingError: If they didn't.
    """
    for (name, wanted), got in zip(expected.items(), found.values(), strict=True):
        if wanted.shape != got.shape or wanted.dtype.kind not in "fiu" or not wanted.size:
            continue  # the number of boxes, say, which depends on rounding
        a, b = (np.sort(x.astype(np.float64).ravel()) for x in (wanted, got))
        scale = float(np.nanmax(np.abs(a), initial=0)) or 1.0
        difference = float(np.nanmax(np.abs(a - b), initial=0)) / scale
        if difference > tolerance or np.isnan(a).sum() != np.isnan(b).sum():
            raise ImportingError(
                f"its output {name!r} changes by {difference:.1e} of the largest value as the file is converted, and "
                f"{tolerance:.0e} is accepted: export it again with 32-bit floats and opset 17"
            )


def _refuse_nan(results: Mapping[str, NDArray[Any]]) -> None:
    for name, values in results.items():
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ImportingError(
                f"{np.isnan(values).mean():.0%} of its output {name!r} are NaN for a picture: its weights are damaged, "
                "or too large for 16-bit floats"
            )


def _give_ranks(model: onnx.ModelProto, results: Mapping[str, NDArray[Any]]) -> None:
    """Give outputs without a shape as many unknown sides as they have, since a part of a graph must have shapes."""
    for output in model.graph.output:
        tensor_type = output.type.tensor_type
        if not tensor_type.HasField("shape"):
            tensor_type.shape.SetInParent()
            for _ in range(results[output.name].ndim):
                tensor_type.shape.dim.add()


def _spec(graph: Graph, name: str, value: NDArray[Any]) -> TensorSpec:
    known = graph.shapes.get(name, (-1,) * value.ndim)
    return TensorSpec(name, known if len(known) == value.ndim else (-1,) * value.ndim, value.dtype)
