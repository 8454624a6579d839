"""Check a flow by the images alone, and repair it in the cells where it fails.

Flow fails where something moved away from what it covered, where it moved too fast, and where errors of many steps have
added up. Warped features then show things twice, or where they were. Such cells give themselves away: the key frame,
warped along the flow, doesn't look like the current frame there.

For each of them, this module searches the whole key frame for the place that looks most like it now, and lets the flow
point there. The ground that a walker uncovers then gets the features of the ground next to it, instead of the walker's
own. Under a scale field, which repaints what fails by itself, a cell only stays where it is if that explains the frame
better than the flow does.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines.motion.tracking import Flow, Image, move

SAMPLE: Final = 4  # side of a sample, pixels of the small image; a cell has one at least
FAILED: Final = 12.0  # grey levels; with a larger error the flow fails in a cell
BETTER: Final = 0.7  # a place is taken if its patch differs by less than this share of what the flow's patch does
BETTER_COARSE: Final = 0.5  # the same for cells of several samples, whose features depend on more of their surroundings
DISTANCE: Final = 0.6  # grey levels that a cell of distance counts as, so that the nearest of similar places is taken
MOST_REPAIRED: Final = 400  # cells at a time, the worst ones; this and the next bound the cost
MOST_PLACES: Final = 2048  # places of the key frame to search at first
LEAST_EXPOSED: Final = 4.0  # grey levels, mean difference of two frames from which on their exposure may explain it
LEAST_SHOWN: Final = 4.0  # grey levels from black or white within which a picture shows nothing
MOST_LOST: Final = 0.5  # share of such values above which a frame isn't the same one at another exposure
MOST_GAIN: Final = 4.0  # of contrast, in either direction; beyond it there is more noise than picture

MEAN: Final = np.full((1, 3), 1 / 3, np.float32)  # weights of the channels
REPAIRED: Final = 0.8  # reliability of a repaired cell: what looks alike needn't be the same


@dataclass(frozen=True, slots=True, eq=False)
class CheckedFlow:
    """A flow, and how far it can be trusted."""

    flow: Flow  # (1, 2, h, w), (dx, dy) in cells
    reliability: NDArray[np.float32]  # (h, w), 0..1: 1 where the flow explains the frame


@dataclass(frozen=True, slots=True, eq=False)
class _Comparison:
    now: NDArray[np.float32]  # the current frame's samples, at the key frame's exposure
    before: NDArray[np.float32]  # the key frame's, warped or not
    error: NDArray[np.float32]  # (h, w), mean difference around each cell, grey levels


class FlowCheck:
    """Checks and repairs the flows from the frames of a stream to one key frame."""

    def __init__(self, key: Image, pixels_per_cell: int) -> None:
        """Take the key frame.

        Args:
            key: The key frame's small image, uint8 (H, W, 3), RGB.
            pixels_per_cell: The finest feature map's stride in pixels of the small image.
        """
        self._pixels_per_cell = pixels_per_cell
        self._rows, self._columns = (-(-side // pixels_per_cell) for side in key.shape[:2])
        self._samples = max(1, pixels_per_cell // SAMPLE)
        self._key = self._sample(key)
        self._places: _Places | None = None  # most frames of a still camera need none

    def check(self, current: Image, flow: Flow) -> CheckedFlow:
        """Measure how far a flow can be trusted.

        Args:
            current: The current frame's small image, uint8 (H, W, 3), RGB.
            flow: The flow to the key frame, (1, 2, h, w), (dx, dy) in cells.
        """
        return CheckedFlow(flow, _reliability(self._compare(self._sample(current), self._warp(flow)).error))

    def repair(self, current: Image, flow: Flow) -> CheckedFlow:
        """Let the cells in which a flow fails point to the places that look like them, where there are any.

        Args:
            current: See `check`.
            flow: See `check`. It isn't changed.

        Returns:
            The repaired flow, and how far it can be trusted.
        """
        moved = self._compare(self._sample(current), self._warp(flow))
        error = moved.error
        cells = np.flatnonzero(error > FAILED)
        if not len(cells):
            return CheckedFlow(flow, _reliability(error))
        if len(cells) > MOST_REPAIRED:
            cells = cells[np.argpartition(error.ravel()[cells], -MOST_REPAIRED)[-MOST_REPAIRED:]]
        self._places = self._places or _Places(self._view(self._key))
        rows, columns = np.divmod(cells, self._columns)
        images = (moved.now, moved.before)
        wanted, found = (self._view(image)[rows, columns].reshape(len(cells), -1) for image in images)
        offsets, patches = self._places.search(rows, columns, wanted)
        better = BETTER if self._samples == 1 else BETTER_COARSE
        taken = _differences(wanted, patches) < better**2 * _differences(wanted, found)
        rows, columns = rows[taken], columns[taken]
        repaired = flow.copy()
        repaired[0, :, rows, columns] = offsets[taken]
        error[rows, columns] = np.abs(wanted - patches)[taken].mean(axis=1)
        reliability = _reliability(error)
        reliability[rows, columns] *= np.float32(REPAIRED)
        return CheckedFlow(repaired, reliability)

    def stay(self, current: Image, flow: Flow) -> CheckedFlow:
        """Let the cells stay where they are in which a flow explains the frame worse than no motion does.

        Args:
            current: See `check`.
            flow: See `check`. It isn't changed.

        Returns:
            The flow, 0 in these cells, and how far it can be trusted.
        """
        image = self._sample(current)
        moved = self._compare(image, self._warp(flow))
        stays = self._compare(image, self._key).error < moved.error
        if stays.any():
            flow = np.where(stays, np.float32(0), flow)
            moved = self._compare(image, self._warp(flow))
        return CheckedFlow(flow, _reliability(moved.error))

    def _compare(self, now: NDArray[np.float32], before: NDArray[np.float32]) -> _Comparison:
        """Compare the current frame's samples with those of the key frame, warped or not."""
        now = _expose_like(before, now)
        return _Comparison(now, before, self._error(now, before))

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
        window = 2 * self._samples + 1
        mean = cv2.transform(cv2.absdiff(now, before), MEAN)
        smooth = cv2.blur(mean, (window, window))
        return np.asarray(cv2.resize(smooth, (self._columns, self._rows), interpolation=cv2.INTER_AREA))

    def _view(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a view of each cell's patch, which covers the cells around it too, (h, w, 3, side, side)."""
        step, side = self._samples, 3 * self._samples
        padded = cv2.copyMakeBorder(image, step, step, step, step, cv2.BORDER_REPLICATE)
        view: NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
        return view[::step, ::step]


def _expose_like(other: NDArray[np.float32], image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the image at the exposure of another one, if exposure is most of what they differ by.

    Cameras adapt, lamps flicker and films fade. That moves nothing, so it mustn't look as if the flow failed. Where the
    image is too bright or too dark to show anything, it is taken to look like the other one.
    """
    difference = float(np.abs(image - other).mean())
    if difference < LEAST_EXPOSED:
        return image
    (middle, spread), (other_middle, other_spread) = _exposure(image), _exposure(other)
    gain = min(max(other_spread / max(spread, 1e-3), 1 / MOST_GAIN), MOST_GAIN)
    exposed = (image - np.float32(middle)) * np.float32(gain) + np.float32(other_middle)
    lost = (image < LEAST_SHOWN) | (image > 255 - LEAST_SHOWN)
    explains = np.abs(exposed - other).mean() < difference / 2 and lost.mean() < MOST_LOST
    return np.where(lost, other, exposed) if explains else image


def _exposure(image: NDArray[np.float32]) -> tuple[float, float]:
    """Return the median, and the mean distance from it, on which a few objects have little influence."""
    few = image[::2, ::2]
    middle = float(np.median(few))
    return middle, float(np.abs(few - middle).mean())


def _reliability(error: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the reliability of each cell: 1 up to the error at which the flow fails, then falling with the error."""
    return np.asarray(np.float32(FAILED) / np.maximum(error, np.float32(FAILED)))


def _differences(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean squared difference of each pair of patches."""
    return np.asarray(np.square(a - b).mean(axis=1))


class _Places:
    """The places of a key frame that features can be taken from.

    Places and cells are compared by their patches, and by how far they are from each other. The search goes over every
    other place at first, or fewer in large frames, and then over the neighbours of the best.
    """

    def __init__(self, view: NDArray[np.float32]) -> None:
        rows, columns = view.shape[:2]
        self._patches = view.reshape(rows, columns, -1)
        self._step = max(2, int(np.ceil(np.sqrt(rows * columns / MOST_PLACES))))
        self._unit = np.float32(DISTANCE**2 * self._patches.shape[2])

    def search(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp], wanted: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the offset (dx, dy) from each cell to the nearest place that looks like it, and that place's patch."""
        from keywarp.engines.motion.loops import nearest_places  # imports numba, if that is installed

        cells = np.stack([rows, columns], axis=1)
        places = nearest_places(self._patches, self._step, self._unit, cells, wanted)
        return (places - cells)[:, ::-1].astype(np.float32), self._patches[places[:, 0], places[:, 1]]
