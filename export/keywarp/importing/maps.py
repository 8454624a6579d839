"""Maps of the image among a graph's tensors, and whether they move with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.picture import picture
from keywarp.importing.runtime import run, run_each

STRIDES = (2, 4, 8, 16, 32, 64, 128)  # pixels per cell; the grid is rounded up
EXACT_STRIDES = tuple(stride for stride in range(2, 129) if stride not in STRIDES)  # those of patches: 14, say
MAX_HELD = 16  # class and register tokens before the grid's own
LEAST_CELLS = 2  # along each side of a map
SHIFT = 32  # least pixels by which the picture is moved
LEAST_EQUIVARIANCE = 0.2
MOST_FIXED = 0.3
MIXING = ("Add", "Sub", "Mul", "Div", "Concat", "Where", "Sum", "Max", "Min", "Pow")  # take a constant beside a map
MEASURED_BYTES = 2**27  # of maps that are compared at one time


@dataclass(frozen=True)
class MapSpec:
    """A tensor that is a map of the image.

    Attributes:
        tensor: Its name.
        channels: Its channels.
        stride: The image's pixels per cell.
        layout: (1, channels, h, w), (1, h, w, channels), or tokens (1, held + h * w, channels).
        held: The tokens before the grid's, which stay as they were on the key frame.
    """

    tensor: str
    channels: int
    stride: int
    layout: Literal["nchw", "nhwc", "tokens"]
    held: int = 0

    def cells(self, height: int, width: int) -> tuple[int, int]:
        """Return the map's rows and columns for an image."""
        return -(-height // self.stride), -(-width // self.stride)

    def grid(self, value: NDArray[Any], height: int, width: int) -> NDArray[Any]:
        """Return the tensor's value as (channels, h, w)."""
        if self.layout == "nchw":
            return value[0]
        rows = value[0, self.held :] if self.layout == "tokens" else value[0]
        return np.moveaxis(rows.reshape(*self.cells(height, width), self.channels), -1, 0)


def map_of(graph: Graph, tensor: str, height: int, width: int) -> MapSpec | None:
    """Return the map that a tensor is by its shape, or None.

    Args:
        graph: The tensor's graph.
        tensor: Its name.
        height: The image's height in pixels.
        width: The image's width in pixels.
    """
    shape = graph.shapes.get(tensor, ())
    if (
        graph.types.get(tensor) != TensorProto.FLOAT
        or tensor not in graph.moving
        or shape[:1] != (1,)
        or min(shape) < 1
    ):
        return None
    grids = {s: (-(-height // s), -(-width // s)) for s in STRIDES}
    grids |= {s: (height // s, width // s) for s in EXACT_STRIDES if height % s == width % s == 0}
    grids = {stride: cells for stride, cells in grids.items() if min(cells) >= LEAST_CELLS}
    match shape[1:]:
        case (first, second, third):
            for stride, cells in grids.items():
                if cells == (second, third):
                    return MapSpec(tensor, first, stride, "nchw")
                if cells == (first, second):
                    return MapSpec(tensor, third, stride, "nhwc")
        case (tokens, channels) if channels > 1:
            found = [(tokens - prod(cells), stride) for stride, cells in grids.items()]
            held, stride = min(((k, s) for k, s in found if 0 <= k <= MAX_HELD), default=(-1, 0))
            if held >= 0:
                return MapSpec(tensor, channels, stride, "tokens", held)
    return None


@dataclass(frozen=True)
class Movement:
    """How far a map moves with the image, and how far it is made of constants that vary over the image.

    Attributes:
        equivariance: The share of the map's change, in squares, that moving it explains when the picture moves: 1 if it
            moves exactly, 0 if it stays. It is low in networks with random weights too, in which the border of
            the picture counts for more than its content.
        fixed: The share of the map's variation that is gone when such constants are replaced by their means: near 1
            for coordinates, 0 if there are none.
    """

    equivariance: float
    fixed: float

    @property
    def moves(self) -> bool:
        """Whether the map can be moved: it isn't made of coordinates, or moves in spite of them."""
        return self.fixed < MOST_FIXED or self.equivariance >= LEAST_EQUIVARIANCE


def measure_movement(
    graph: Graph, maps: Iterable[MapSpec], height: int, width: int, scale: float = 1.0
) -> dict[str, Movement]:
    """Measure how far maps move with the image.

    The network runs on a picture, and on the same picture moved by some cells. If there are constants that vary over
    the image, such as grids and position embeddings, it runs once more with their means in their place.

    Args:
        graph: The network's graph.
        maps: The maps.
        height: The image's height in pixels.
        width: The image's width in pixels.
        scale: The value of white in the image.

    Returns:
        The movement by the maps' tensors.
    """
    specs = list(maps)
    found: dict[str, Movement] = {}
    shifts = {spec.tensor: spec.stride * max(1, SHIFT // spec.stride) for spec in specs}
    large = picture(height + max(shifts.values(), default=0), width + max(shifts.values(), default=0))
    for group in _groups(graph, specs):
        names = [spec.tensor for spec in group]
        part = graph.part(
            "maps",
            [graph.nodes[index] for index in graph.needed(names)],
            [graph.value(IMAGE)],
            [graph.value(name) for name in names],
        )
        starts = [0, *sorted({shifts[name] for name in names})]
        views = [large[..., start : start + height, start : start + width] * np.float32(scale) for start in starts]
        seen = dict(zip(starts, run_each(part, [{IMAGE: view} for view in views]), strict=True))
        flat = run(part, {IMAGE: views[0]}) if _flatten(graph, part, height, width) else seen[0]
        for spec in group:
            shift = shifts[spec.tensor]
            still, moved, flattened = (
                spec.grid(values[spec.tensor], height, width) for values in (seen[0], seen[shift], flat)
            )
            found[spec.tensor] = Movement(
                equivariance(still, moved, shift // spec.stride), _difference(still, flattened)
            )
    return found


def grid_constants(graph: Graph, nodes: Iterable[onnx.NodeProto], height: int, width: int) -> set[str]:
    """Return the constants that vary over the image: grids of coordinates and position embeddings.

    Args:
        graph: The graph.
        nodes: The nodes that read them.
        height: The image's height in pixels.
        width: The image's width in pixels.
    """
    cells = {(-(-height // stride), -(-width // stride)) for stride in (*STRIDES, *EXACT_STRIDES)}
    lengths = {rows * columns for rows, columns in cells}
    found = set()
    for node in nodes:
        constants = [name for name in node.input if name in graph.initializers]
        if node.op_type not in MIXING or not constants:
            continue
        output = graph.shapes.get(node.output[0], ())
        spec = map_of(graph, node.output[0], height, width)
        for name in constants:
            shape = graph.shapes[name]
            sides = dict(enumerate(shape, len(output) - len(shape)))  # broadcast from the right
            if spec is not None:
                axes = {"nchw": (2, 3), "nhwc": (1, 2), "tokens": (1,)}[spec.layout]
                spatial = any(sides.get(axis, 1) > 1 for axis in axes)
            else:
                pairs = zip(shape, shape[1:], strict=False)
                spatial = any(pair in cells for pair in pairs) or max(shape, default=1) >= min(lengths, default=2) > 1
            if spatial:
                found.add(name)
    return found


def _flatten(graph: Graph, part: onnx.ModelProto, height: int, width: int) -> bool:
    """Replace a part's constants that vary over the image by their means, in place; return whether there are any."""
    names = grid_constants(graph, part.graph.node, height, width)
    flattened = False
    for tensor in part.graph.initializer:
        if tensor.name in names:
            values = numpy_helper.to_array(tensor)
            if values.dtype.kind == "f" and np.ptp(values) > 0:
                tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, values.mean()), tensor.name))
                flattened = True
    return flattened


def _difference(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the difference of two maps (C, h, w) in squares, as a share of the first one's variation."""
    difference = np.square(first.astype(np.float64) - second).sum()
    variation = np.square(first - first.mean((1, 2), keepdims=True, dtype=np.float64)).sum()
    return float(difference / variation) if variation > 0 else float(difference > 0)


def equivariance(still: NDArray[Any], moved: NDArray[Any], cells: int) -> float:
    """Return the share of a map's change that moving it explains.

    Cells that have no counterpart are left out. It is the lesser of two values, over all channels as they are and the
    median channel's, so that neither few large channels nor many small ones decide alone.

    Args:
        still: The map (C, h, w) of the picture.
        moved: The map of the picture whose content is up and to the left by `cells`.
        cells: The distance along each side.
    """
    here = moved[:, :-cells, :-cells].astype(np.float64)
    unexplained = np.square(here - still[:, cells:, cells:]).sum((1, 2))
    change = np.square(here - still[:, :-cells, :-cells]).sum((1, 2))
    if not change.sum() > 0:
        return 0.0  # it doesn't see the picture
    channels = 1 - unexplained[change > 0] / change[change > 0]
    return max(0.0, float(min(1 - unexplained.sum() / change.sum(), np.median(channels))))


def _groups(graph: Graph, specs: list[MapSpec]) -> Iterable[list[MapSpec]]:
    """Divide maps into groups that fit into memory together."""
    group: list[MapSpec] = []
    size = 0
    for spec in specs:
        bytes_ = 4 * prod(graph.shapes[spec.tensor])
        if group and size + bytes_ > MEASURED_BYTES:
            yield group
            group, size = [], 0
        group.append(spec)
        size += bytes_
    if group:
        yield group
