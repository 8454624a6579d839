"""Compute the masks of selected objects, inside their boxes only.

Cells are interpolated linearly, with centres at half pixels, as PyTorch's `interpolate` does.
"""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.jit import jit, jit_or
from keywarp.engines.masks import InstanceMasks

BEYOND = -0.5  # value beyond the box of a mask that covers the box only

Array = NDArray[np.float32]


def prototype_masks(coefficients: Array, prototypes: Array, boxes: Array, height: int, width: int) -> InstanceMasks:
    """Return masks whose cells are sums of the prototypes' cells, weighted by coefficients ("YOLACT", section 3.1).

    Args:
        coefficients: The objects' coefficients, (n, k).
        prototypes: The prototypes, (k, rows, columns), which cover the networks' input.
        boxes: The objects' boxes, (n, 4), x1, y1, x2, y2 in pixels of the input and inside of it.
        height: The input's height in pixels.
        width: The input's width in pixels.
    """
    windows = _windows(boxes)
    flat = _sum_prototypes(np.ascontiguousarray(coefficients), np.ascontiguousarray(prototypes), windows, height, width)
    return _split(flat, windows, height, width)


def image_masks(masks: Array, rows: NDArray[np.intp], boxes: Array, height: int, width: int) -> InstanceMasks:
    """Return masks that cover the networks' input.

    Args:
        masks: The masks of all rows, (n, h, w).
        rows: The rows of the objects, (m,).
        boxes: The objects' boxes, (m, 4), x1, y1, x2, y2 in pixels of the input and inside of it.
        height: The input's height in pixels.
        width: The input's width in pixels.
    """
    windows = _windows(boxes)
    return _split(_enlarge_images(np.ascontiguousarray(masks), rows, windows, height, width), windows, height, width)


def box_masks(masks: Array, rows: NDArray[np.intp], boxes: Array, height: int, width: int) -> InstanceMasks:
    """Return masks that cover the objects' boxes.

    Args:
        masks: The masks of all rows, (n, h, w).
        rows: The rows of the objects, (m,).
        boxes: The objects' boxes, (m, 4), x1, y1, x2, y2 in pixels of the input and inside of it.
        height: The input's height in pixels.
        width: The input's width in pixels.
    """
    windows = _windows(boxes)
    return _split(_paste(np.ascontiguousarray(masks), rows, boxes, windows), windows, height, width)


def _windows(boxes: Array) -> NDArray[np.intp]:
    """Return the pixels in each box, (n, 4): first column, first row, and those after the last."""
    return np.ceil(boxes).astype(np.intp)


def _split(flat: NDArray[np.bool_], windows: NDArray[np.intp], height: int, width: int) -> InstanceMasks:
    """Return the masks whose windows' pixels follow one another."""
    sizes = windows[:, 2:] - windows[:, :2]
    views = []
    start = 0
    for columns, rows in sizes.tolist():
        views.append(flat[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    return InstanceMasks(height, width, windows[:, :2], tuple(views))


def _position_arrays(pixels: int, cells: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    position = np.maximum((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0.0)
    before = np.minimum(position.astype(np.intp), cells - 1)
    return before, (position - before).astype(np.float32)


@jit_or(_position_arrays)
def _positions(pixels: int, cells: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the cell whose centre is before that of each pixel, and how far the pixel is from it to the next, 0..1."""
    before, share = np.empty(pixels, np.intp), np.empty(pixels, np.float32)
    for n in range(pixels):
        position = max((n + 0.5) * cells / pixels - 0.5, 0.0)
        before[n] = min(int(position), cells - 1)
        share[n] = position - before[n]
    return before, share


def _enlarge_arrays(
    cells: Array,
    row: int,
    column: int,
    window: NDArray[np.intp],
    down: tuple[NDArray[np.intp], NDArray[np.float32]],
    across: tuple[NDArray[np.intp], NDArray[np.float32]],
    out: NDArray[np.bool_],
) -> None:
    """Write what `_enlarge` writes, with array operations."""
    left, top, right, bottom = window.tolist()
    first, before = down[0][top:bottom] - row, across[0][left:right] - column
    second, after = np.minimum(first + 1, cells.shape[0] - 1), np.minimum(before + 1, cells.shape[1] - 1)
    lines = cells[first] + (cells[second] - cells[first]) * down[1][top:bottom, np.newaxis]
    values = lines[:, before] + (lines[:, after] - lines[:, before]) * across[1][left:right]
    out[:] = (values > 0).reshape(-1)


@jit_or(_enlarge_arrays)
def _enlarge(
    cells: Array,
    row: int,
    column: int,
    window: NDArray[np.intp],
    down: tuple[NDArray[np.intp], NDArray[np.float32]],
    across: tuple[NDArray[np.intp], NDArray[np.float32]],
    out: NDArray[np.bool_],
) -> None:
    """Write where interpolated values are above 0.

    Args:
        cells: The values of some cells of a map, which begin at `row` and `column` and are all that the window needs.
        row: The first row.
        column: The first column.
        window: First column, first row, and those after the last, in pixels.
        down: What `_positions` returned for the map's rows.
        across: Likewise for its columns.
        out: The pixels of the window.
    """
    left, top, right, bottom = window[0], window[1], window[2], window[3]
    rows, columns = cells.shape
    line = np.empty(columns, np.float32)
    place = 0
    for y in range(top, bottom):
        first = down[0][y] - row
        second, part = min(first + 1, rows - 1), down[1][y]
        above, below = cells[first], cells[second]
        for x in range(columns):
            line[x] = above[x] + (below[x] - above[x]) * part
        for x in range(left, right):
            before = across[0][x] - column
            after = min(before + 1, columns - 1)
            out[place] = line[before] + (line[after] - line[before]) * across[1][x] > 0
            place += 1


@jit
def _count(windows: NDArray[np.intp]) -> int:
    count = 0
    for n in range(len(windows)):
        count += (windows[n, 2] - windows[n, 0]) * (windows[n, 3] - windows[n, 1])
    return count


def _sum_prototype_arrays(
    coefficients: Array, prototypes: Array, windows: NDArray[np.intp], height: int, width: int
) -> NDArray[np.bool_]:
    """Return what `_sum_prototypes` returns, with array operations."""
    _, rows, columns = prototypes.shape
    down, across = _positions(height, rows), _positions(width, columns)
    flat = np.empty(_count(windows), np.bool_)
    start = 0
    for weights, window in zip(coefficients, windows, strict=True):
        left, top, right, bottom = window.tolist()
        size = (right - left) * (bottom - top)
        if size == 0:
            continue
        row, column = down[0][top], across[0][left]
        ends = min(down[0][bottom - 1] + 2, rows), min(across[0][right - 1] + 2, columns)
        cells = np.tensordot(weights, prototypes[:, row : ends[0], column : ends[1]], 1)
        _enlarge(cells, row, column, window, down, across, flat[start : start + size])
        start += size
    return flat


@jit_or(_sum_prototype_arrays)
def _sum_prototypes(
    coefficients: Array, prototypes: Array, windows: NDArray[np.intp], height: int, width: int
) -> NDArray[np.bool_]:
    count, rows, columns = prototypes.shape
    down, across = _positions(height, rows), _positions(width, columns)
    flat = np.empty(_count(windows), np.bool_)
    start = 0
    for n in range(len(windows)):
        left, top, right, bottom = windows[n, 0], windows[n, 1], windows[n, 2], windows[n, 3]
        size = (right - left) * (bottom - top)
        if size == 0:
            continue
        row, column = down[0][top], across[0][left]
        ends = min(down[0][bottom - 1] + 2, rows), min(across[0][right - 1] + 2, columns)
        cells = np.zeros((ends[0] - row, ends[1] - column), np.float32)
        for k in range(count):
            weight = coefficients[n, k]
            for y in range(cells.shape[0]):
                total, values = cells[y], prototypes[k, row + y, column : ends[1]]
                for x in range(len(total)):
                    total[x] += weight * values[x]
        _enlarge(cells, row, column, windows[n], down, across, flat[start : start + size])
        start += size
    return flat


@jit
def _enlarge_images(
    masks: Array, rows: NDArray[np.intp], windows: NDArray[np.intp], height: int, width: int
) -> NDArray[np.bool_]:
    down, across = _positions(height, masks.shape[1]), _positions(width, masks.shape[2])
    flat = np.empty(_count(windows), np.bool_)
    start = 0
    for n in range(len(windows)):
        size = (windows[n, 2] - windows[n, 0]) * (windows[n, 3] - windows[n, 1])
        _enlarge(masks[rows[n]], 0, 0, windows[n], down, across, flat[start : start + size])
        start += size
    return flat


def _paste_arrays(masks: Array, rows: NDArray[np.intp], boxes: Array, windows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return what `_paste` returns, with array operations."""
    _, height, width = masks.shape
    padded = np.full((height + 2, width + 2), BEYOND, np.float32)
    found = [np.empty(0, np.bool_)]
    for row, box, (left, top, right, bottom) in zip(rows, boxes, windows.tolist(), strict=True):
        padded[1:-1, 1:-1] = masks[row]
        x1, y1, x2, y2 = box.tolist()
        down = (np.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * height + 0.5
        along = (np.arange(left, right) + 0.5 - x1) / (x2 - x1) * width + 0.5
        first, before = np.clip(down.astype(np.intp), 0, height), np.clip(along.astype(np.intp), 0, width)
        part, share = (down - first).astype(np.float32)[:, np.newaxis], (along - before).astype(np.float32)
        across = padded[:, before] + (padded[:, before + 1] - padded[:, before]) * share
        found.append((across[first] + (across[first + 1] - across[first]) * part > 0).reshape(-1))
    return np.concatenate(found)


@jit_or(_paste_arrays)
def _paste(masks: Array, rows: NDArray[np.intp], boxes: Array, windows: NDArray[np.intp]) -> NDArray[np.bool_]:
    _, height, width = masks.shape
    flat = np.empty(_count(windows), np.bool_)
    padded = np.full((height + 2, width + 2), BEYOND, np.float32)
    place = 0
    for n in range(len(windows)):
        padded[1:-1, 1:-1] = masks[rows[n]]
        x1, y1, x2, y2 = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3]
        for y in range(windows[n, 1], windows[n, 3]):
            down = (y + 0.5 - y1) / (y2 - y1) * height + 0.5  # in cells of the padded mask, whose centres are whole
            top = min(max(int(down), 0), height)
            part = np.float32(down - top)
            for x in range(windows[n, 0], windows[n, 2]):
                along = (x + 0.5 - x1) / (x2 - x1) * width + 0.5
                left = min(max(int(along), 0), width)
                share = np.float32(along - left)
                above = padded[top, left] + (padded[top, left + 1] - padded[top, left]) * share
                below = padded[top + 1, left] + (padded[top + 1, left + 1] - padded[top + 1, left]) * share
                flat[place] = above + (below - above) * part > 0
                place += 1
    return flat
