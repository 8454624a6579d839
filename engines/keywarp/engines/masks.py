"""Which pixels belong to each of several objects."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class InstanceMasks:
    """The masks of objects. Of each one, only a window is kept that no pixel of the object is outside of.

    Masks have the resolution of the networks' input, and cover the frame without any padding.
    """

    height: int  # of a whole mask, pixels
    width: int
    corners: NDArray[np.intp]  # (n, 2): x and y of each window's first pixel
    windows: tuple[NDArray[np.bool_], ...]  # (h, w) each; inside the mask, and perhaps empty

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.windows)

    def take(self, indices: Iterable[int]) -> "InstanceMasks":
        """Return the masks of some objects."""
        chosen = [*indices]
        corners = self.corners[np.array(chosen, np.intp)]
        return InstanceMasks(self.height, self.width, corners, tuple(self.windows[n] for n in chosen))

    def crop(self, left: int, top: int, width: int, height: int) -> "InstanceMasks":
        """Return the masks in a part of the picture.

        Args:
            left: The part's first column, in pixels.
            top: Its first row.
            width: Its width.
            height: Its height.
        """
        corners, windows = [], []
        for (x, y), window in zip((self.corners - (left, top)).tolist(), self.windows, strict=True):
            first = max(x, 0), max(y, 0)
            windows.append(window[first[1] - y : max(height - y, 0), first[0] - x : max(width - x, 0)])
            corners.append((min(first[0], width), min(first[1], height)))
        return InstanceMasks(height, width, np.array(corners, np.intp).reshape(-1, 2), tuple(windows))

    def resize(self, height: int, width: int) -> "InstanceMasks":
        """Return the masks at another resolution, with smooth edges.

        Args:
            height: The height of a whole mask in pixels.
            width: Its width.
        """
        if (height, width) == (self.height, self.width):
            return self
        across, down = width / self.width, height / self.height
        corners, windows = [], []
        for (x, y), window in zip(self.corners.tolist(), self.windows, strict=True):
            rows, columns = window.shape
            left, top = int(x * across), int(y * down)
            right, bottom = min(width, -(-(x + columns) * width // self.width)), -(-(y + rows) * height // self.height)
            corners.append((left, top))
            if not window.size:
                windows.append(np.zeros((0, 0), np.bool_))
                continue
            # The centre of each pixel, in pixels of the window. A pixel is in the mask if most of what is around is.
            shift = np.array(
                [
                    [1 / across, 0, (left + 0.5) / across - x - 0.5],
                    [0, 1 / down, (top + 0.5) / down - y - 0.5],
                ]
            )
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            grey = window.astype(np.uint8) * np.uint8(255)
            larger = cv2.warpAffine(grey, shift, (right - left, bottom - top), flags=flags)
            windows.append(np.asarray(larger) >= 128)
        return InstanceMasks(height, width, np.array(corners, np.intp).reshape(-1, 2), tuple(windows))

    def whole(self) -> NDArray[np.bool_]:
        """Return whole masks, (n, height, width). It takes memory: 8 MB for 20 objects at 640x640."""
        masks = np.zeros((len(self), self.height, self.width), np.bool_)
        for mask, (x, y), window in zip(masks, self.corners.tolist(), self.windows, strict=True):
            mask[y : y + window.shape[0], x : x + window.shape[1]] = window
        return masks

    def areas(self) -> NDArray[np.int64]:
        """Return the number of each object's pixels, (n,)."""
        return np.array([np.count_nonzero(window) for window in self.windows], np.int64)


def overlaps(first: InstanceMasks, second: InstanceMasks) -> NDArray[np.float64]:
    """Return the intersection over union of every two masks of the same resolution, (n, m). Empty ones overlap nothing.

    Raises:
        ValueError: If the resolutions differ.
    """
    if (first.height, first.width) != (second.height, second.width):
        raise ValueError(
            f"masks of {first.width}x{first.height} and {second.width}x{second.height} pixels can't be compared"
        )
    shared = np.zeros((len(first), len(second)))
    ends = [
        masks.corners + np.array([w.shape[::-1] for w in masks.windows], np.intp).reshape(-1, 2)
        for masks in (first, second)
    ]
    low = np.maximum(first.corners[:, None], second.corners[None])
    high = np.minimum(ends[0][:, None], ends[1][None])
    for n, m in np.argwhere((low < high).all(axis=-1)).tolist():
        (x1, y1), (x2, y2) = low[n, m], high[n, m]
        a, b = (
            window[y1 - y : y2 - y, x1 - x : x2 - x]
            for window, (x, y) in ((first.windows[n], first.corners[n]), (second.windows[m], second.corners[m]))
        )
        shared[n, m] = np.count_nonzero(a & b)
    union = first.areas()[:, None] + second.areas()[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
