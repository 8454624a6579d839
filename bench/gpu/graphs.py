"""The paper's networks: their graphs without weights, which are made once with torch, and weights from a seed.

Without weights the six bundles take a hundred kilobytes, so that they go wherever the checks go. The weights keep the
size of what passes through the layers, also through a hundred of them, so that fp16 can represent it.
"""

import io
import json
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from bench.gpu.case import Case, SkippedError
from bench.gpu.checks import FEATURES, FLOWS
from keywarp.engines.bundle import Bundle, make_bundle
from keywarp.saving import SavingWarning

LEAST: Final = 64  # numbers of a constant that is a weight, and isn't kept
RESIDUAL: Final = 0.3  # of a branch that is added to another: it then adds a tenth to the variance
LAST: Final = {"flow.onnx": 2.0, "head.onnx": 0.1}  # of layers that give a graph's outputs: a cell of flow, mild scores
_NEXT: Final = ("Conv", "ConvTranspose", "Relu", "LeakyRelu", "Shape")  # where a layer's own output ends
EMPTY: Final = "filled from a seed"
DRY_SIZE: Final = (64, 96)
PAPER_SIZE: Final = (600, 1000)


def run(case: Case) -> None:
    """Make the graphs that aren't there yet.

    Raises:
        SkippedError: If torch is missing.
    """
    folder = case.folder / "graphs"
    missing = [(a, b) for a in FEATURES for b in FLOWS if not (folder / f"{a}-{b}.zip").is_file()]
    if missing:
        make(folder, missing, dry=case.dry)
    sizes = {file.stem: file.stat().st_size for file in sorted(folder.glob("*.zip"))}
    case.record(bytes=sizes, made=len(missing), summary=f"{len(sizes)} bundles, {sum(sizes.values()) / 1e3:.0f} kB")


def open_paper(case: Case, features: str, flow: str) -> Bundle:
    """Return a bundle of the paper's networks with weights from a seed.

    Raises:
        SkippedError: If its graphs weren't made.
    """
    file = case.folder / "graphs" / f"{features}-{flow}.zip"
    if not file.is_file():
        raise SkippedError(f"no graphs of {features} with {flow}: the check `graphs` makes them, with torch")
    with ZipFile(file) as archive:
        fields = json.loads(archive.read("fields.json"))
        graphs = {
            name: onnx.load_from_string(archive.read(name)) for name in archive.namelist() if name.endswith(".onnx")
        }
    for name, model in graphs.items():
        fill(model, LAST.get(name, 1.0))
    return make_bundle(Path(file.stem), graphs, **fields)


def make(folder: Path, pairs: list[tuple[str, str]], *, dry: bool) -> None:
    """Export bundles with torch, and keep them without their weights.

    Args:
        folder: The folder to write to.
        pairs: The names of feature network and flow network of each.
        dry: Whether they are networks of a few layers.

    Raises:
        SkippedError: If torch is missing.
    """
    try:
        from keywarp.export.bundle import export_network
        from keywarp.networks import ModelCard, NetworkOptions, build_network
    except ImportError as error:
        raise SkippedError(f"making the graphs needs torch and the extra `train` ({error})") from error
    import torch

    from keywarp.networks.resnet import RESNET50, RESNET101

    height, width = DRY_SIZE if dry else PAPER_SIZE
    folder.mkdir(parents=True, exist_ok=True)
    for features, flow in pairs:
        torch.manual_seed(0)
        shape: dict[str, Any] = {"blocks": RESNET50 if features == "resnet50" else RESNET101}
        if dry:
            shape = {"blocks": (1, 1, 1, 1), "channels": 16, "width": 0.25, "flow_share": 0.25}
        network = build_network(NetworkOptions(classes=31, task="detection", flow=flow, **shape))
        names = [f"class {number}" for number in range(31)]
        card = ModelCard(f"{features}-{flow}", "0.0.0", "unlicensed", names, height, width)
        with TemporaryDirectory() as work, warnings.catch_warnings():
            warnings.simplefilter("ignore", SavingWarning)  # the networks of a dry run are small
            bundle = export_network(network, card, work)
            write_skeleton(bundle, folder / f"{features}-{flow}.zip")


def write_skeleton(bundle: Bundle, file: Path) -> None:
    """Write a bundle without its weights."""
    content = io.BytesIO()
    fields = bundle.manifest.model_dump(mode="json", exclude={"files", "precisions", "schema_version"})
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        archive.writestr("fields.json", json.dumps(fields))
        for name in bundle.manifest.files:
            model = bundle.graph(name)
            for weight in _weights(model):
                weight.ClearField("raw_data")
                weight.ClearField("float_data")
                weight.doc_string = EMPTY
            archive.writestr(name, model.SerializeToString())
    partial = file.with_suffix(".partial")
    partial.write_bytes(content.getvalue())
    partial.replace(file)


def fill(model: onnx.ModelProto, last: float) -> None:
    """Fill the weights that `write_skeleton` left out, in place: always with the same numbers.

    Args:
        model: The graph.
        last: The factor of the weights of layers that give its outputs.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    ends = {output.name for output in model.graph.output}
    for weight in model.graph.initializer:
        if weight.doc_string != EMPTY:
            continue
        user = _through(readers, weight.name, {"Cast", "Identity"})
        shape = tuple(weight.dims)
        inputs = int(np.prod(shape[1:])) if user.op_type == "Conv" else int(np.prod(shape)) // shape[-1]
        if user.op_type == "ConvTranspose":  # each output has a share of the kernel, by the stride
            stride = next((list(a.ints) for a in user.attribute if a.name == "strides"), [1, 1])
            inputs = int(np.prod((shape[0], *shape[2:]))) // int(np.prod(stride))
        gain = _gain(readers, user, ends, last)
        rng = np.random.default_rng(zlib.crc32(weight.name.encode()))
        values = rng.standard_normal(shape, np.float32) * np.float32(gain * np.sqrt(2 / max(1, inputs)))
        kind = np.float16 if weight.data_type == TensorProto.FLOAT16 else np.float32
        weight.CopyFrom(numpy_helper.from_array(values.astype(kind), weight.name))


def _weights(model: onnx.ModelProto) -> Iterator[TensorProto]:
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    for value in model.graph.initializer:
        if value.data_type in kinds and len(value.dims) >= 2 and np.prod(value.dims) >= LEAST:
            yield value


def _through(readers: dict[str, list[onnx.NodeProto]], name: str, passed: set[str]) -> onnx.NodeProto:
    """Return the first reader of a tensor that isn't one of the operators to pass."""
    while True:
        found = readers.get(name)
        if not found:
            return onnx.NodeProto()
        if found[0].op_type not in passed:
            return found[0]
        name = found[0].output[0]


def _gain(readers: dict[str, list[onnx.NodeProto]], user: onnx.NodeProto, ends: set[str], last: float) -> float:
    """Return the factor of a layer's weights, by what becomes of its output."""
    waiting = list(user.output)
    while waiting:
        name = waiting.pop(0)
        if name in ends:
            return last
        for node in readers.get(name, []):
            if node.op_type == "Add" and all(other == name or _made(readers, other) for other in node.input):
                return RESIDUAL
            if node.op_type not in _NEXT:
                waiting += node.output
    return 1.0


def _made(readers: dict[str, list[onnx.NodeProto]], name: str) -> bool:
    """Return whether a tensor is made of the image, as opposed to a constant."""
    return any(
        name in node.output and node.op_type in ("Relu", "Conv", "Add", "BatchNormalization")
        for nodes in readers.values()
        for node in nodes
    )
