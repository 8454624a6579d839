"""The class of each pixel, from scores at the stride of the features (section 4).

Between the centres of four cells scores are interpolated bilinearly. A class that has the highest score in all four
has it everywhere between them, so most of a picture needs no arithmetic. Elsewhere only the classes that can have it
are interpolated: those whose best score of the four isn't below the worst score of another class.

These loops are compiled. Without numba, graphs give labels themselves (`GraphStyle.host_labels`).
"""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.jit import jit


class Labeller:
    """Labels pixels, for one size of the networks' input."""

    def __init__(self, height: int, width: int, stride: int) -> None:
        """Compute where the pixels lie between cells, and compile the code.

        Args:
            height: The height of the networks' input in pixels.
            width: Its width.
            stride: The stride of the scores in pixels.
        """
        self.cells = -(-height // stride), -(-width // stride)
        self._rows, self._columns = Axis(height, stride), Axis(width, stride)
        self.label(np.zeros((2, *self.cells), np.float32))

    def label(self, scores: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the class with the highest score at each pixel; the first one of several.

        Args:
            scores: The scores, (C, h, w), of at most 256 classes.

        Returns:
            The classes, (height, width).
        """
        by_cell = np.ascontiguousarray(scores.transpose(1, 2, 0), np.float32)
        rows, columns = self._rows, self._columns
        return _label(by_cell, rows.starts, rows.shares, columns.starts, columns.shares)


class Axis:
    """Where pixels lie between cells along one axis. Centres of pixels and cells are at half of their size.

    Attributes:
        before: The cell before each pixel, or the cell itself.
        starts: The first pixel that isn't before each cell, and the number of pixels.
        shares: The share of the next cell in each pixel.
    """

    def __init__(self, pixels: int, stride: int) -> None:
        """Compute it.

        Args:
            pixels: The side of the networks' input in pixels.
            stride: The stride of the scores in pixels.
        """
        cells = -(-pixels // stride)
        position = np.clip((np.arange(pixels) + 0.5) / stride - 0.5, 0, cells - 1)
        before = np.floor(position)
        self.before = before.astype(np.int32)
        self.starts = np.searchsorted(before, np.arange(cells + 1))
        self.shares = (position - before).astype(np.float32)


@jit
def _label(
    scores: NDArray[np.float32],
    row_starts: NDArray[np.int64],
    row_shares: NDArray[np.float32],
    column_starts: NDArray[np.int64],
    column_shares: NDArray[np.float32],
) -> NDArray[np.uint8]:
    rows, columns, classes = scores.shape
    labels = np.empty((len(row_shares), len(column_shares)), np.uint8)
    highest = _highest(scores)
    candidates = np.empty(classes, np.intp)
    widest = np.max(np.diff(column_starts))
    best, found = np.empty(widest, np.float32), np.empty(widest, np.int32)
    for row in range(rows):
        below = min(row + 1, rows - 1)
        for column in range(columns):
            after = min(column + 1, columns - 1)
            label = highest[row, column]
            left, right = column_starts[column], column_starts[column + 1]
            if label == highest[row, after] and label == highest[below, column] and label == highest[below, after]:
                for y in range(row_starts[row], row_starts[row + 1]):
                    labels[y, left:right] = label
                continue
            corners = scores[row, column], scores[row, after], scores[below, column], scores[below, after]
            count = _find_candidates(corners, candidates)
            shares = column_shares[left:right]
            for y in range(row_starts[row], row_starts[row + 1]):
                down = row_shares[y]
                best[:] = -np.inf
                found[:] = label
                for n in range(count):
                    one = np.int32(candidates[n])
                    start = corners[0][one] + (corners[2][one] - corners[0][one]) * down
                    end = corners[1][one] + (corners[3][one] - corners[1][one]) * down
                    change = end - start
                    for x in range(len(shares)):
                        score = start + change * shares[x]
                        found[x] = one if score > best[x] else found[x]
                        best[x] = score if score > best[x] else best[x]
                for x in range(len(shares)):
                    labels[y, left + x] = found[x]
    return labels


@jit
def _highest(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the class with the highest score in each cell."""
    rows, columns, classes = scores.shape
    highest = np.zeros((rows, columns), np.uint8)
    for row in range(rows):
        for column in range(columns):
            best = scores[row, column, 0]
            for one in range(1, classes):
                if scores[row, column, one] > best:
                    best = scores[row, column, one]
                    highest[row, column] = one
    return highest


@jit
def _find_candidates(
    corners: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    candidates: NDArray[np.intp],
) -> int:
    """Write the classes that can be the highest between four cells to `candidates`, and return their number."""
    a, b, c, d = corners
    sure = np.float32(-np.inf)  # what one class reaches everywhere
    for one in range(len(a)):
        sure = max(sure, min(min(a[one], b[one]), min(c[one], d[one])))
    count = 0
    for one in range(len(a)):
        if max(max(a[one], b[one]), max(c[one], d[one])) >= sure:
            candidates[count] = one
            count += 1
    return count
