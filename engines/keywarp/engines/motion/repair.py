"""Repair a flow in the cells where it fails, from the images alone.

Flow fails where something moved away from what it covered, where it moved too fast, and where errors of many steps have
added up. Warped features then show things twice, or where they were. Such cells give themselves away: the key frame,
warped along the flow, doesn't look like the current frame there. For each of them, this module searches the whole key
frame for the place that looks most like it now, and lets the flow point there. The ground that a walker uncovers then
gets the features of the ground next to it, instead of the walker's own.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.motion.tracking import Flow, Image, move

SAMPLE: Final = 2  # side of a sample, pixels of the small image
MAX_SAMPLES: Final = 4  # per cell and axis
MARGIN: Final = 2  # samples around a cell that belong to its patch
FAILED: Final = 12.0  # grey levels; cells with a larger error are repaired
BETTER: Final = 0.8  # a place is taken if its patch differs by less than this share of what the flow's patch does
DISTANCE: Final = 0.15  # grey levels for each cell of distance, so that the nearest of similar places is taken
MOST_REPAIRED: Final = 400  # cells at a time, the worst ones; this and the next bound the cost
MOST_PLACES: Final = 4096  # places of the key frame to search; in larger frames not every cell is one


class FlowRepair:
    """Repairs the flows from the frames of a stream to one key frame."""

    def __init__(self, key: Image, pixels_per_cell: int) -> None:
        """Take the key frame.

        Args:
            key: The key frame's small image, uint8 (H, W, 3), RGB.
            pixels_per_cell: The finest feature map's stride in pixels of the small image.
        """
        self._pixels_per_cell = pixels_per_cell
        self._rows, self._columns = (-(-side // pixels_per_cell) for side in key.shape[:2])
        self._samples = max(1, min(pixels_per_cell // SAMPLE, MAX_SAMPLES))
        self._key = self._sample(key)
        self._places: _Places | None = None  # most frames of a still camera need none

    def repair(self, current: Image, flow: Flow) -> tuple[Flow, NDArray[np.float32]]:
        """Repair a flow where it fails.

        Args:
            current: The current frame's small image, uint8 (H, W, 3), RGB.
            flow: The flow to the key frame, (1, 2, h, w), (dx, dy) in cells.

        Returns:
            The repaired flow, of the same form; and what remains of the error after it, (h, w), in grey levels.
        """
        now = self._sample(current)
        before = self._warp(flow)
        error = self._error(now, before)
        cells = np.flatnonzero(error > FAILED)
        if not len(cells):
            return flow, error
        if len(cells) > MOST_REPAIRED:
            cells = cells[np.argpartition(error.ravel()[cells], -MOST_REPAIRED)[-MOST_REPAIRED:]]
        self._places = self._places or _Places(self._view(self._key))
        rows, columns = np.divmod(cells, self._columns)
        wanted, found = (self._view(image)[rows, columns].reshape(len(cells), -1) for image in (now, before))
        offsets, patches, differences = self._places.search(rows, columns, wanted)
        taken = differences < BETTER * np.sqrt(np.mean((wanted - found) ** 2, axis=1))
        rows, columns = rows[taken], columns[taken]
        repaired = flow.copy()
        repaired[0, :, rows, columns] = offsets[taken]
        error[rows, columns] = np.abs(wanted - patches)[taken].mean(axis=1)
        return repaired, error

    def _sample(self, image: Image) -> NDArray[np.float32]:
        """Return the image averaged over samples, (h * samples, w * samples, 3)."""
        side = self._pixels_per_cell
        below, right = self._rows * side - image.shape[0], self._columns * side - image.shape[1]
        if below or right:
            image = np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE), dtype=np.uint8)
        size = (self._columns * self._samples, self._rows * self._samples)
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)

    def _warp(self, flow: Flow) -> NDArray[np.float32]:
        """Return the key frame's samples, warped along a flow in cells."""
        cells = np.ascontiguousarray(flow[0].transpose(1, 2, 0)) * np.float32(self._samples)
        size = (self._columns * self._samples, self._rows * self._samples)
        return move(self._key, np.asarray(cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR)))

    def _error(self, now: NDArray[np.float32], before: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean difference of two images around each cell, (h, w), in grey levels."""
        window = self._samples + MARGIN + 1
        smooth = cv2.blur(np.abs(now - before).mean(axis=2), (window, window))
        return np.asarray(cv2.resize(smooth, (self._columns, self._rows), interpolation=cv2.INTER_AREA))

    def _view(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a view of each cell's patch, (h, w, 3, side, side)."""
        padded = cv2.copyMakeBorder(image, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE)
        side, step = self._samples + 2 * MARGIN, self._samples
        view: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
        return view[::step, ::step]


class _Places:
    """The places of a key frame that features can be taken from."""

    def __init__(self, view: NDArray[np.float32]) -> None:
        rows, columns = view.shape[:2]
        step = int(np.ceil(np.sqrt(rows * columns / MOST_PLACES)))
        at = np.mgrid[:rows:step, :columns:step].reshape(2, -1)
        self._at = at.T.astype(np.float32)  # (n, 2): row, column
        self._patches = view[at[0], at[1]].reshape(at.shape[1], -1)
        self._norms = np.square(self._patches).sum(axis=1)

    def search(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp], wanted: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return the offset (dx, dy) from each cell to the most similar place, its patch, and how they differ."""
        cells = np.stack([rows, columns], axis=1).astype(np.float32)
        differences = _distances(wanted, self._patches, self._norms) / np.float32(np.sqrt(wanted.shape[1]))
        differences += np.float32(DISTANCE) * _distances(cells, self._at, np.square(self._at).sum(axis=1))
        best = differences.argmin(axis=1)
        return (self._at[best] - cells)[:, ::-1], self._patches[best], differences[np.arange(len(best)), best]


def _distances(a: NDArray[np.float32], b: NDArray[np.float32], norms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distance of every row of `a` from every row of `b`, (n, m), given the squared lengths of `b`."""
    squares = np.square(a).sum(axis=1)[:, np.newaxis] + norms - 2 * (a @ b.T)
    return np.asarray(np.sqrt(np.maximum(squares, 0, out=squares), out=squares))
