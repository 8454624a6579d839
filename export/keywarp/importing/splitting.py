"""A network split at a candidate: two graphs, of which one ends and the other begins with maps (1, C, h, w)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from keywarp.engines.manifest import map_names
from keywarp.importing.candidates import Candidate
from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.maps import MapSpec
from keywarp.importing.model_file import ImportedModel
from keywarp.importing.picture import picture
from keywarp.importing.runtime import run

TOLERANCE = 1e-4  # largest difference between the parts and the whole, as a share of the largest value


def split(model: ImportedModel, candidate: Candidate) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Split a network into features and a head.

    Args:
        model: The network.
        candidate: Where to cut it.

    Returns:
        The features: `image` -> `features` or `features_0`, ..., float (1, C, h, w) in the order of the candidate's
        maps, and `held` or `held_0`, ..., float (1, held, C), for those maps that have held tokens, in their order. The
        head: these -> the file's own outputs.

    Raises:
        ImportingError: If the maps don't separate the image from the outputs.
    """
    graph = Graph(model.model)
    borders = _borders(candidate.maps, model.height, model.width)
    tensors = [border.spec.tensor for border in borders]
    head = graph.needed(graph.outputs, tensors)
    if any(IMAGE in graph.reads[index] for index in head):
        raise ImportingError(f"the results still depend on the image when the network is cut at {', '.join(tensors)}")

    leaving, entering = _Drawing(), _Drawing()
    for border in borders:
        leaving.leave(border)
        entering.enter(border)
    maps = [border.map_value for border in borders]
    held = [border.held_value for border in borders if border.held]
    features = graph.part(
        "features",
        [*(graph.nodes[index] for index in graph.needed(tensors)), *leaving.nodes],
        [graph.value(IMAGE)],
        [*maps, *held],
        leaving.constants,
    )
    rest = graph.part(
        "head",
        [*entering.nodes, *(graph.nodes[index] for index in head)],
        [*maps, *held],
        [graph.value(name) for name in graph.outputs],
        entering.constants,
    )
    for part in (features, rest):
        onnx.checker.check_model(part)
    return features, rest


def check_split(
    model: ImportedModel,
    features: onnx.ModelProto,
    head: onnx.ModelProto,
    image: NDArray[np.float32] | None = None,
) -> float:
    """Check on ONNX Runtime that the parts of a network give the same as the whole.

    Args:
        model: The network.
        features: Its features.
        head: Its head, with the file's own outputs.
        image: The image (1, 3, height, width) as the network takes it. By default a picture is drawn.

    Returns:
        The largest difference of an output, as a share of its largest value.

    Raises:
        ImportingError: If an output differs by more than 1e-4.
    """
    if image is None:
        image = picture(model.height, model.width, seed=1) * np.float32(255 if model.bytes_in else 1)
    whole = run(model.model, {IMAGE: image})
    joined = run(head, run(features, {IMAGE: image}))
    largest = 0.0
    for name, wanted in whole.items():
        got = joined[name]
        if wanted.shape != got.shape:
            raise ImportingError(
                f"output {name!r} is {list(wanted.shape)}, but {list(got.shape)} when the network is cut"
            )
        if not wanted.size:
            continue
        a, b = wanted.astype(np.float64), got.astype(np.float64)
        scale = float(np.nanmax(np.abs(a), initial=0)) or 1.0
        difference = float(np.nanmax(np.abs(a - b), initial=0)) / scale
        if difference > TOLERANCE or not np.array_equal(np.isnan(a), np.isnan(b)):
            raise ImportingError(
                f"output {name!r} changes by {difference:.1e} of its largest value when the network is cut, and "
                f"{TOLERANCE:.0e} is accepted: choose another cut"
            )
        largest = max(largest, difference)
    return largest


@dataclass(frozen=True)
class _Border:
    """A map where the parts meet, with its names and shapes between them."""

    spec: MapSpec
    name: str  # of the map (1, C, h, w)
    held: str  # of the held tokens (1, held, C); empty if there are none
    cells: tuple[int, int]

    @property
    def map_value(self) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(self.name, TensorProto.FLOAT, (1, self.spec.channels, *self.cells))

    @property
    def held_value(self) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(self.held, TensorProto.FLOAT, (1, self.spec.held, self.spec.channels))


def _borders(maps: Sequence[MapSpec], height: int, width: int) -> list[_Border]:
    names = map_names("features", len(maps))
    holding = [spec.tensor for spec in maps if spec.held]
    held = dict(zip(holding, map_names("held", len(holding)), strict=True))
    return [
        _Border(spec, name, held.get(spec.tensor, ""), spec.cells(height, width))
        for spec, name in zip(maps, names, strict=True)
    ]


class _Drawing:
    """Nodes and constants that are added to a part."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def leave(self, border: _Border) -> None:
        """Add what makes a map (1, C, h, w) of a tensor, and its held tokens."""
        spec, name = border.spec, border.name
        if spec.layout == "nchw":
            self._node("Identity", [spec.tensor], name)
            return
        if spec.layout == "nhwc":
            self._node("Transpose", [spec.tensor], name, perm=[0, 3, 1, 2])
            return
        tokens = spec.tensor
        if border.held:
            sizes = self._constant(f"{name}/sizes", [spec.held, border.cells[0] * border.cells[1]])
            tokens = f"{name}/tokens"
            self.nodes.append(helper.make_node("Split", [spec.tensor, sizes], [border.held, tokens], axis=1))
        self._node("Transpose", [tokens], f"{name}/rows", perm=[0, 2, 1])
        shape = self._constant(f"{name}/shape", [1, spec.channels, *border.cells])
        self._node("Reshape", [f"{name}/rows", shape], name)

    def enter(self, border: _Border) -> None:
        """Add what makes the tensor of a map (1, C, h, w) and its held tokens."""
        spec, name = border.spec, border.name
        if spec.layout == "nchw":
            self._node("Identity", [name], spec.tensor)
            return
        if spec.layout == "nhwc":
            self._node("Transpose", [name], spec.tensor, perm=[0, 2, 3, 1])
            return
        shape = self._constant(f"{name}/shape", [1, spec.channels, border.cells[0] * border.cells[1]])
        self._node("Reshape", [name, shape], f"{name}/rows")
        tokens = f"{name}/tokens" if border.held else spec.tensor
        self._node("Transpose", [f"{name}/rows"], tokens, perm=[0, 2, 1])
        if border.held:
            self._node("Concat", [border.held, tokens], spec.tensor, axis=1)

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))

    def _constant(self, name: str, values: list[int]) -> str:
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name
