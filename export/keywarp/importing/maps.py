"""Maps of the image among a graph's tensors, and whether they move with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.picture import picture
from keywarp.importing.runtime import run

STRIDES = (2, 4, 8, 16, 32, 64, 128)  # pixels per cell; the grid is rounded up
EXACT_STRIDES = tuple(stride for stride in range(2, 129) if stride not in STRIDES)  # those of patches: 14, say
MAX_HELD = 16  # class and register tokens before the grid's own
LEAST_CELLS = 2  # along each side of a map
SHIFT = 32  # least pixels by which the picture is moved
MEASURED_BYTES = 2**28  # of maps that are compared at one time


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
    if graph.types.get(tensor) != TensorProto.FLOAT or tensor not in graph.moving or shape[:1] != (1,) or min(shape) < 1:
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


def measure_equivariance(
    graph: Graph, maps: Iterable[MapSpec], height: int, width: int, scale: float = 1.0
) -> dict[str, float]:
    """Measure how far maps move with the image.

    The network runs on a picture and on the same picture moved by some cells. A map's *equivariance* is the share of its
    change, in squares, that moving it by as many cells explains: 1 if it moves exactly, 0 or less if it stays. Cells
    that have no counterpart are left out. It is the lesser of two values, over all channels as they are and the median
    channel's, so that neither few large channels nor many small ones decide alone.

    Args:
        graph: The network's graph.
        maps: The maps.
        height: The image's height in pixels.
        width: The image's width in pixels.
        scale: The value of white in the image.

    Returns:
        The equivariance by the maps' tensors.
    """
    found: dict[str, float] = {}
    by_shift: dict[int, list[MapSpec]] = {}
    for spec in maps:
        by_shift.setdefault(spec.stride * max(1, SHIFT // spec.stride), []).append(spec)
    for shift, specs in by_shift.items():
        large = picture(height + shift, width + shift) * scale
        views = large[..., :height, :width], large[..., shift:, shift:]
        for group in _groups(graph, specs):
            names = [spec.tensor for spec in group]
            part = graph.part("maps", [graph.nodes[i] for i in graph.needed(names)], [graph.value(IMAGE)], [graph.value(n) for n in names])
            still, moved = (run(part, {IMAGE: np.ascontiguousarray(view)}) for view in views)
            for spec in group:
                a, b = (spec.grid(values[spec.tensor], height, width) for values in (still, moved))
                found[spec.tensor] = equivariance(a, b, shift // spec.stride)
    return found


def equivariance(still: NDArray[Any], moved: NDArray[Any], cells: int) -> float:
    """Return the share of a map's change that moving it explains, see `measure_equivariance`.

    Args:
        still: The map (C, h, w) of the picture.
        moved: The map of the picture whose content is up and to the left by `cells`.
        cells: The distance along each side.
    """
    here = moved[:, :-cells, :-cells].astype(np.float64)
    unexplained = np.square(here - still[:, cells:, cells:]).sum((1, 2))
    change = np.square(here - still[:, :-cells, :-cells]).sum((1, 2))
    if not change.sum() > 0:
        return 0.0
    channels = 1 - unexplained[change > 0] / change[change > 0]
    return float(min(1 - unexplained.sum() / change.sum(), np.median(channels)))


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
