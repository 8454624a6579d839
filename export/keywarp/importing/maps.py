"""Maps of the image among a graph's tensors, and whether they move with it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
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
HELD = (0, 1, 2, 4, 5, 8, 9)  # numbers of class and register tokens before the grid's own
LEAST_CELLS = 2  # along each side of a map
SHIFT = 32  # least pixels by which the picture is moved
LARGEST_SHIFT = 128  # pixels
CORNER = 0.4  # share of each side of the picture that changes to measure locality
LEAST_RESPONSE = 1e-9  # of a map to that change, in squares; less is rounding
MIXING = ("Add", "Sub", "Mul", "Div", "Concat", "Where", "Sum", "Max", "Min", "Pow")  # take a constant beside a map
MEASURED_BYTES = 2**27  # of maps that are measured at one time


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
            return np.asarray(value[0])
        rows = value[0, self.held :] if self.layout == "tokens" else value[0]
        return np.asarray(np.moveaxis(rows.reshape(*self.cells(height, width), self.channels), -1, 0))


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
            held, stride = min(((k, s) for k, s in found if k in HELD), default=(-1, 0))
            if held >= 0:
                return MapSpec(tensor, channels, stride, "tokens", held)
    return None


class Measurement:
    """Runs a network on pictures, to find out which of its tensors are maps that move with the image."""

    def __init__(self, graph: Graph, height: int, width: int, white: float = 1.0) -> None:
        """Prepare pictures.

        Args:
            graph: The network's graph.
            height: The image's height in pixels.
            width: The image's width in pixels.
            white: The value of white in the image.
        """
        self._graph, self._height, self._width = graph, height, width
        self._large = picture(height + LARGEST_SHIFT, width + LARGEST_SHIFT) * np.float32(white)
        self._other = picture(height, width, seed=1) * np.float32(white)

    def locality(self, maps: Iterable[MapSpec]) -> dict[str, float]:
        """Measure whether what changes in a corner of the picture changes a map in the same corner.

        A tensor can have a map's shape by chance: 100 queries, as many as the cells of a map, or 100 = 10 x 10 classes.

        Args:
            maps: The maps.

        Returns:
            The share of the change, in squares, in the right one of the four corners, by the maps' tensors. It is 1/4
            if there is no relation. Of a network that hardly responds to the picture, as some with random weights, it
            is 1 for maps (1, C, h, w), and 0 for others.
        """
        views = [self._view(0), self._view(0), self._view(0)]
        rows, columns = int(self._height * CORNER), int(self._width * CORNER)
        views[1][..., :rows, :columns] = self._other[..., :rows, :columns]
        views[2][..., :rows, -columns:] = self._other[..., :rows, -columns:]
        found: dict[str, float] = {}
        for group, part in self._parts(maps):
            before, left, right = run_each(part, [{IMAGE: view} for view in views])
            for spec in group:
                still, first, second = (self._grid(spec, values) for values in (before, left, right))
                shares = [_in_corner(still, first, right=False), _in_corner(still, second, right=True)]
                blind = float(spec.layout == "nchw")
                found[spec.tensor] = min(blind if share is None else share for share in shares)
        return found

    def equivariance(self, maps: Iterable[MapSpec], brighter: float = 1.0) -> dict[str, float]:
        """Measure how far maps move with the picture, see `equivariance`.

        Args:
            maps: The maps.
            brighter: A factor for the values of the picture.

        Returns:
            The equivariance by the maps' tensors. It is low in networks with random weights too, in which the border of
            the picture counts for more than its content.
        """
        found: dict[str, float] = {}
        for group, part in self._parts(maps):
            shifts = {spec.tensor: spec.stride * max(1, SHIFT // spec.stride) for spec in group}
            starts = [0, *sorted(set(shifts.values()))]
            feeds = [{IMAGE: self._view(start) * np.float32(brighter)} for start in starts]
            seen = dict(zip(starts, run_each(part, feeds), strict=True))
            for spec in group:
                shift = shifts[spec.tensor]
                still, moved = self._grid(spec, seen[0]), self._grid(spec, seen[shift])
                found[spec.tensor] = equivariance(still, moved, shift // spec.stride)
        return found

    def fixed(self, maps: Iterable[MapSpec]) -> dict[str, float]:
        """Measure how far maps are made of constants that vary over the image, such as coordinates.

        Args:
            maps: The maps.

        Returns:
            The share of a map's variation, in squares, that is gone when such constants are replaced by their means, by
            the maps' tensors: near 1 or above for coordinates, 0 if there are none.
        """
        found: dict[str, float] = {}
        for group, part in self._parts(maps):
            before = run(part, {IMAGE: self._view(0)})
            after = run(part, {IMAGE: self._view(0)}) if self._flatten(part) else before
            for spec in group:
                found[spec.tensor] = _difference(self._grid(spec, before), self._grid(spec, after))
        return found

    def _view(self, start: int) -> NDArray[np.float32]:
        """Return a part of the large picture that starts some pixels down and to the right."""
        return self._large[..., start : start + self._height, start : start + self._width].copy()

    def _grid(self, spec: MapSpec, values: dict[str, NDArray[Any]]) -> NDArray[Any]:
        return spec.grid(values[spec.tensor], self._height, self._width)

    def _parts(self, maps: Iterable[MapSpec]) -> Iterator[tuple[list[MapSpec], onnx.ModelProto]]:
        """Yield the networks that compute maps, in groups that fit into memory together."""
        graph = self._graph
        groups: list[list[MapSpec]] = []
        left = 0
        for spec in maps:
            size = 4 * prod(graph.shapes[spec.tensor])
            if not groups or size > left:
                groups.append([])
                left = MEASURED_BYTES
            groups[-1].append(spec)
            left -= size
        for group in groups:
            names = [spec.tensor for spec in group]
            nodes = [graph.nodes[index] for index in graph.needed(names)]
            yield group, graph.part("maps", nodes, [graph.value(IMAGE)], [graph.value(name) for name in names])

    def _flatten(self, part: onnx.ModelProto) -> bool:
        """Replace a part's constants that vary over the image by their means, in place; return if there are any."""
        names = grid_constants(self._graph, part.graph.node, self._height, self._width)
        flattened = False
        for tensor in part.graph.initializer:
            if tensor.name in names:
                values = numpy_helper.to_array(tensor)
                if values.dtype.kind == "f" and np.ptp(values) > 0:
                    tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, values.mean()), tensor.name))
                    flattened = True
        return flattened


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
                pairs = pairwise(shape)
                spatial = any(pair in cells for pair in pairs) or max(shape, default=1) >= min(lengths, default=2) > 1
            if spatial:
                found.add(name)
    return found


def _difference(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the difference of two maps (C, h, w) in squares, as a share of the first one's variation."""
    difference = np.square(first.astype(np.float64) - second).sum()
    variation = np.square(first - first.mean((1, 2), keepdims=True, dtype=np.float64)).sum()
    return float(difference / variation) if variation > 0 else float(difference > 0)


def equivariance(still: NDArray[Any], moved: NDArray[Any], cells: int) -> float:
    """Return the share of a map's change, in squares, that moving it explains: 1 if it moves exactly, 0 if it stays.

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


def _in_corner(before: NDArray[Any], after: NDArray[Any], right: bool) -> float | None:
    """Return the share of a map's change (C, h, w) in an upper corner, or None if it hardly changes at all."""
    change = np.square(after.astype(np.float64) - before).sum(0)
    if not change.sum() > LEAST_RESPONSE * np.square(before.astype(np.float64)).sum():
        return None
    rows, columns = change.shape
    corners = [
        change[vertical, horizontal].sum()
        for vertical in (slice(rows // 2), slice((rows + 1) // 2, None))
        for horizontal in (slice(columns // 2), slice((columns + 1) // 2, None))
    ]
    return float(corners[right] / max(sum(corners), np.finfo(float).tiny))
