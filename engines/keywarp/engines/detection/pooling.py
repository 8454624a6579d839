"""Position-sensitive pooling and voting ("R-FCN", Dai et al., 2016, reference [8] of the paper).

A region is divided into k x k bins, and each bin reads its own maps. The arithmetic is that of torchvision's
ps_roi_pool: regions are rounded to whole cells, and a bin is the mean over the cells that it touches, or zero if it
touches none. Unlike torchvision, the last row and column of the maps are used, too.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.jit import jit, jit_or
from keywarp.engines.processor import available_cores

_LANES = 4  # smallest number of values in a vector register


class Pooling:
    """Pools regions on two threads, each of which reads the maps of half of the bins."""

    def __init__(self, bins: int, scale: np.float32) -> None:
        """Start a thread, unless there is only one core.

        Args:
            bins: The number of bins k along each side of a region.
            scale: Cells per pixel.
        """
        self._bins, self._scale = bins, scale
        self._helper = ThreadPoolExecutor(1, "keywarp-pooling") if available_cores() > 1 else None

    def vote(self, maps: NDArray[np.float32], regions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pool each region and average its bins.

        Args:
            maps: The maps, (H, W, k^2, C): C values for each cell and bin, with bins row by row.
            regions: The regions, (n, 4), x1, y1, x2, y2 in pixels, not negative.

        Returns:
            The votes, (n, C).
        """
        bins = self._bins**2
        half = bins // 2 if self._helper else 0
        arguments = maps, regions, self._bins, self._scale
        first = self._helper.submit(_vote, *arguments, 0, half) if self._helper else None
        votes = _vote(*arguments, half, bins)
        if first:
            votes += first.result()
        return (votes / bins).astype(np.float32)


def _vote_arrays(
    maps: NDArray[np.float32], regions: NDArray[np.float32], bins: int, scale: np.float32, first: int, end: int
) -> NDArray[np.float64]:
    """Return what `_vote` returns, with array operations: differences of running sums over the maps."""
    height, width, _, channels = maps.shape
    votes = np.zeros((len(regions), channels), np.float64)
    columns = _edge_arrays(regions[:, 0], regions[:, 2], scale, bins, width)
    rows = _edge_arrays(regions[:, 1], regions[:, 3], scale, bins, height)
    sums = np.zeros((height + 1, width + 1, channels), np.float64)
    for bin_index in range(first, end):
        np.cumsum(np.cumsum(maps[:, :, bin_index], axis=0, dtype=np.float64), axis=1, out=sums[1:, 1:])
        (top, bottom), (left, right) = rows[bin_index // bins].T, columns[bin_index % bins].T
        total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        cells = (bottom - top) * (right - left)
        votes += np.where(cells[:, np.newaxis] == 0, 0, total / np.maximum(cells, 1)[:, np.newaxis])
    return votes


def _edge_arrays(
    starts: NDArray[np.float32], ends: NDArray[np.float32], scale: np.float32, bins: int, cells: int
) -> NDArray[np.intp]:
    """Return what `_edges` returns, with array operations."""
    first, last = (np.floor((side * scale).astype(np.float64) + 0.5) for side in (starts, ends))
    size = np.maximum(last - first, 1).astype(np.float32) / np.float32(bins)
    k = np.arange(bins, dtype=np.float32)[:, np.newaxis]
    edges = np.stack([first + np.floor(k * size), first + np.ceil((k + 1) * size)], axis=2)
    return np.asarray(np.minimum(edges, cells), np.intp)


@jit_or(_vote_arrays)
def _vote(
    maps: NDArray[np.float32],
    regions: NDArray[np.float32],
    bins: int,
    scale: np.float32,
    first: int,
    end: int,
) -> NDArray[np.float64]:
    """Return the sums over some of the bins, (n, C).

    They are in double precision, so that the order of the bins doesn't matter.
    """
    height, width, _, channels = maps.shape
    values = maps.reshape(-1)
    columns = _edges(regions[:, 0], regions[:, 2], scale, bins, width)
    rows = _edges(regions[:, 1], regions[:, 3], scale, bins, height)
    # Whole vector registers are summed. They may include a few values of the next bin, which are ignored.
    lanes = -(-channels // _LANES) * _LANES
    bin_sum = np.empty(lanes, np.float32)
    votes = np.zeros((len(regions), channels), np.float64)
    for bin_index in range(first, end):  # all regions for one bin, whose values fit into the processor's cache
        row, column = bin_index // bins, bin_index % bins
        for n in range(len(regions)):
            top, bottom = rows[row, n, 0], rows[row, n, 1]
            left, right = columns[column, n, 0], columns[column, n, 1]
            cells = (bottom - top) * (right - left)
            if cells == 0:
                continue
            bin_sum[:] = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    start = ((y * width + x) * bins * bins + bin_index) * channels
                    cell = values[start : min(start + lanes, len(values))]
                    for c in range(len(cell)):
                        bin_sum[c] += cell[c]
            for c in range(channels):
                votes[n, c] += bin_sum[c] / np.float32(cells)
    return votes


@jit
def _edges(
    starts: NDArray[np.float32], ends: NDArray[np.float32], scale: np.float32, bins: int, cells: int
) -> NDArray[np.intp]:
    """Return the first cell of each bin along one side of each region, and the cell after its last, (bins, n, 2)."""
    edges = np.empty((bins, len(starts), 2), np.intp)
    for n in range(len(starts)):
        first, last = _round(starts[n] * scale), _round(ends[n] * scale)
        size = np.float32(max(last - first, 1)) / np.float32(bins)
        for k in range(bins):
            edges[k, n, 0] = min(first + math.floor(np.float32(k) * size), cells)
            edges[k, n, 1] = min(first + math.ceil(np.float32(k + 1) * size), cells)
    return edges


@jit
def _round(value: np.float32) -> int:
    """Round to the nearest integer, with halves up."""
    return math.floor(np.float64(value) + 0.5)
