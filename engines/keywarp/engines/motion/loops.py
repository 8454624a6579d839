"""The compiled loops of codec motion and of the repair.

This module imports numba, if that is installed. So it is imported when a motion source first needs it: many bundles
never do.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.compiler import COMPILES
from keywarp.engines.jit import jit_or


def _fill_block_arrays(
    corners: NDArray[np.int16],
    sizes: NDArray[np.int16],
    displacements: NDArray[np.float32],
    chosen: NDArray[np.bool_],
    side: int,
    blocks: NDArray[np.float32],
    drawn: NDArray[np.bool_],
) -> None:
    """Write what `fill_blocks` writes, with array operations."""
    rows, columns = drawn.shape
    first = (corners[chosen].astype(np.intp) + side // 2) // side
    last = np.minimum(first + np.maximum(sizes[chosen] // side, 1), [columns, rows])
    first = np.maximum(first, 0)
    across, down = np.maximum(last - first, 0).T
    vector = np.repeat(np.arange(len(first)), across * down)  # of each block, the vector that covers it
    block = np.arange(len(vector)) - np.repeat(np.cumsum(across * down) - across * down, across * down)
    row, column = first[vector, 1] + block // across[vector], first[vector, 0] + block % across[vector]
    blocks[row, column] = displacements[chosen][vector]  # where several cover a block, the last one stays
    drawn[row, column] = True


@jit_or(_fill_block_arrays)
def fill_blocks(
    corners: NDArray[np.int16],
    sizes: NDArray[np.int16],
    displacements: NDArray[np.float32],
    chosen: NDArray[np.bool_],
    side: int,
    blocks: NDArray[np.float32],
    drawn: NDArray[np.bool_],
) -> None:
    """Write the chosen vectors into the smallest blocks that they cover.

    Args:
        corners: The left upper corner (x, y) of each vector's block in pixels, (n, 2).
        sizes: Their width and height in pixels, (n, 2).
        displacements: The vectors (dx, dy) in pixels, (n, 2).
        chosen: Which of them to write, (n,).
        side: The side of the smallest blocks in pixels.
        blocks: The vectors of the smallest blocks, (rows, columns, 2). Updated in place.
        drawn: Where one was written, (rows, columns). Updated in place.
    """
    rows, columns = drawn.shape
    for n in range(len(chosen)):
        if not chosen[n]:
            continue
        left, top = (corners[n, 0] + side // 2) // side, (corners[n, 1] + side // 2) // side
        right, bottom = left + max(sizes[n, 0] // side, 1), top + max(sizes[n, 1] // side, 1)
        for row in range(max(top, 0), min(bottom, rows)):
            for column in range(max(left, 0), min(right, columns)):
                blocks[row, column, 0], blocks[row, column, 1] = displacements[n, 0], displacements[n, 1]
                drawn[row, column] = True


def _take_better_arrays(
    flow: NDArray[np.float32],
    error: NDArray[np.float32],
    inside: NDArray[np.bool_],
    best: NDArray[np.float32],
    least: NDArray[np.float32],
) -> None:
    """Write what `take_better` writes, with array operations."""
    better = inside & (error < least)
    least[better], best[better] = error[better], flow[better]


@jit_or(_take_better_arrays)
def take_better(
    flow: NDArray[np.float32],
    error: NDArray[np.float32],
    inside: NDArray[np.bool_],
    best: NDArray[np.float32],
    least: NDArray[np.float32],
) -> None:
    """Write a flow and its error to the best ones where the error is smaller than the least one, and `inside` holds.

    Args:
        flow: The flow, (rows, columns, 2).
        error: Its error, (rows, columns).
        inside: Where it may be taken, (rows, columns).
        best: The best flow so far. Updated in place.
        least: The error of the best flow so far. Updated in place.
    """
    rows, columns = error.shape
    for row in range(rows):
        for column in range(columns):
            if inside[row, column] and error[row, column] < least[row, column]:
                least[row, column] = error[row, column]
                best[row, column, 0], best[row, column, 1] = flow[row, column, 0], flow[row, column, 1]


def _nearest_place_arrays(
    patches: NDArray[np.float32], step: int, unit: np.float32, cells: NDArray[np.intp], wanted: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Return what `nearest_places` returns, with array operations. Of equally near places, the same one is first."""
    rows, columns, values = patches.shape
    down, across = np.arange(0, rows, step), np.arange(0, columns, step)
    places = patches[::step, ::step].reshape(-1, values).astype(np.float64)
    looks = wanted.astype(np.float64)
    # |p - w|^2 = |p|^2 + |w|^2 - 2 p w; rounded to single precision, so that places that look alike are equally near.
    # NumPy's matrix product would start threads, which take turns with those of the networks.
    products = cv2.gemm(looks, places, -2, None, 0, flags=cv2.GEMM_2_T)  # type: ignore[call-overload]
    differences = products + np.square(places).sum(axis=1) + np.square(looks).sum(axis=1)[:, np.newaxis]
    away: list[NDArray[np.float32]] = [
        np.square(side - cells[:, [axis]]).astype(np.float32) for axis, side in enumerate((down, across))
    ]
    distances = differences.astype(np.float32).reshape(len(cells), len(down), len(across))
    distances += unit * (away[0][:, :, np.newaxis] + away[1][:, np.newaxis])
    found = np.empty_like(cells)  # the best places of the first search
    above = cells[:, 0] // step
    for first in np.unique(above).tolist():
        mine = above == first
        outwards = np.argsort(np.maximum(first - np.arange(len(down)), np.arange(len(down)) - first - 1), kind="stable")
        best = distances[mine][:, outwards].reshape(int(mine.sum()), -1).argmin(axis=1)
        found[mine, 0], found[mine, 1] = down[outwards[best // len(across)]], across[best % len(across)]
    around = np.moveaxis(np.mgrid[1 - step : step, 1 - step : step], 0, 2).reshape(-1, 2)
    near = found[:, np.newaxis] + around
    inside = ((near >= 0) & (near < [rows, columns])).all(axis=2)
    within = np.clip(near, 0, [rows - 1, columns - 1])
    changes = patches[within[..., 0], within[..., 1]] - wanted[:, np.newaxis]
    nearness = unit * np.square(near - cells[:, np.newaxis]).sum(axis=2).astype(np.float32)
    nearness += np.einsum("nmk,nmk->nm", changes, changes)
    best = np.where(inside, nearness, np.inf).argmin(axis=1)
    return np.asarray(near[np.arange(len(cells)), best])


@jit_or(_nearest_place_arrays, reorder=True)
def nearest_places(
    patches: NDArray[np.float32], step: int, unit: np.float32, cells: NDArray[np.intp], wanted: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Return the row and column of the place whose patch and position are nearest to each cell's, (n, 2).

    Args:
        patches: The patches of the places, (rows, columns, values).
        step: How many rows and columns apart are the places of the first search.
        unit: The squared difference of two patches that a cell of distance counts as.
        cells: The cells' rows and columns, (n, 2).
        wanted: Their patches, (n, values).
    """
    rows, columns, values = patches.shape
    places = np.empty_like(cells)
    for n in range(len(cells)):
        row, column = cells[n]
        best, best_row, best_column = np.float32(np.inf), 0, 0
        above = row // step * step
        for away in range(0, rows + step, step):  # outwards, so that what is too far away needn't be compared
            for r in (above - away, above + step + away):
                if r < 0 or r >= rows or unit * np.float32((r - row) ** 2) >= best:
                    continue
                for c in range(0, columns, step):
                    distance = unit * np.float32((r - row) ** 2 + (c - column) ** 2)
                    if distance >= best:
                        continue
                    for k in range(values):
                        difference = patches[r, c, k] - wanted[n, k]
                        distance += difference * difference
                    if distance < best:
                        best, best_row, best_column = distance, r, c
        best = np.float32(np.inf)
        for r in range(max(best_row - step + 1, 0), min(best_row + step, rows)):
            for c in range(max(best_column - step + 1, 0), min(best_column + step, columns)):
                distance = unit * np.float32((r - row) ** 2 + (c - column) ** 2)
                for k in range(values):
                    difference = patches[r, c, k] - wanted[n, k]
                    distance += difference * difference
                if distance < best:
                    best, places[n, 0], places[n, 1] = distance, r, c
    return places


def warm_up() -> None:
    """Compile the loops, which takes seconds the first time: otherwise a frame would wait for it."""
    if not COMPILES:
        return
    places, flow, vectors = np.zeros((1, 2), np.intp), np.zeros((1, 1, 2), np.float32), np.zeros((1, 2), np.int16)
    error, where = np.zeros((1, 1), np.float32), np.zeros((1, 1), np.bool_)
    fill_blocks(vectors, vectors, flow[0], where[0], 1, flow, where)
    take_better(flow, error, where, flow.copy(), error.copy())
    nearest_places(flow, 1, np.float32(1), places, flow[0])
