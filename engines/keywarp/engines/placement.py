"""Where the picture of a frame lies in the networks' input."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Cells = tuple[slice, slice]  # rows and columns of a map


@dataclass(frozen=True, slots=True)
class Placement:
    """The networks' input, and the part of it that shows the frame. The rest is padding.

    All lengths are pixels of the input.
    """

    height: int  # of the input
    width: int
    top: int  # padding above the picture
    left: int  # padding on its left
    rows: int  # of the picture
    columns: int

    @property
    def size(self) -> tuple[int, int]:
        """The size of the input, (height, width)."""
        return self.height, self.width

    @property
    def is_padded(self) -> bool:
        """Whether there is padding."""
        return (self.rows, self.columns) != self.size

    def cells(self, stride: int) -> Cells:
        """Return the cells of a map that see any of the picture.

        Args:
            stride: The map's stride.
        """
        ends = self.top + self.rows, self.left + self.columns
        rows, columns = (
            slice(start // stride, -(-end // stride)) for start, end in zip((self.top, self.left), ends, strict=True)
        )
        return rows, columns

    def pad(self, picture: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
        """Return the networks' input.

        Args:
            picture: The frame at the size of the picture, (rows, columns, 3).
            value: The padding's value in all channels.
        """
        if not self.is_padded:
            return picture
        below, right = self.height - self.top - self.rows, self.width - self.left - self.columns
        fill, constant = (value, value, value), cv2.BORDER_CONSTANT
        padded = cv2.copyMakeBorder(picture, self.top, below, self.left, right, constant, value=fill)
        return np.asarray(padded, dtype=np.uint8)

    def cover(self, picture: NDArray[np.uint8], stride: int | None = None) -> NDArray[np.uint8]:
        """Return what motion is estimated on: the picture, and its border repeated up to whole cells.

        Padding doesn't move, and looks like an edge that doesn't, so it mustn't be seen.

        Args:
            picture: The frame at the size of the picture, (rows, columns, 3).
            stride: The stride of the map whose cells are covered, or None to cover the whole input.
        """
        if not self.is_padded:
            return picture
        stride = stride or max(self.size)
        rows, columns = self.cells(stride)
        above, left = self.top - rows.start * stride, self.left - columns.start * stride
        below = min(rows.stop * stride, self.height) - self.top - self.rows
        right = min(columns.stop * stride, self.width) - self.left - self.columns
        return np.asarray(cv2.copyMakeBorder(picture, above, below, left, right, cv2.BORDER_REPLICATE), dtype=np.uint8)

    def crop(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return a view of the picture in an image of the input's size, (height, width, ...)."""
        return image[self.top : self.top + self.rows, self.left : self.left + self.columns]

    def spread(self, flow: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
        """Return the flow of all cells of a map.

        Padding moves with the picture next to it along the border between the two, but not across.

        Args:
            flow: The flow of the cells that see the picture, (1, 2, h, w), (dx, dy) in cells.
            stride: The map's stride.
        """
        if not self.is_padded:
            return flow
        rows, columns = self.cells(stride)
        below, right = -(-self.height // stride) - rows.stop, -(-self.width // stride) - columns.stop
        whole = np.pad(flow, ((0, 0), (0, 0), (rows.start, below), (columns.start, right)), mode="edge")
        for outside in (slice(0, rows.start), slice(rows.stop, None)):
            whole[:, 1, outside] = 0
        for outside in (slice(0, columns.start), slice(columns.stop, None)):
            whole[:, 0, :, outside] = 0
        return whole

    def cover_exactly(self, values: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
        """Return a map whose cells cover the picture exactly, from one whose cells cover the whole input.

        Where the cells of the map don't begin and end with the picture, they are resampled bilinearly.

        Args:
            values: The map, (h, w).
            stride: The map's stride.

        Returns:
            The map, (rows / stride, columns / stride), rounded.
        """
        (rows, top), (columns, left) = (self.rows, self.top), (self.columns, self.left)
        if not any(length % stride for length in (rows, top, columns, left)):
            return values[self.cells(stride)]
        size = max(1, round(columns / stride)), max(1, round(rows / stride))
        steps = columns / size[0] / stride, rows / size[1] / stride  # in cells of the given map
        first = [(start / stride) + 0.5 * step - 0.5 for start, step in zip((left, top), steps, strict=True)]
        places = np.array([[steps[0], 0, first[0]], [0, steps[1], first[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        covering = cv2.warpAffine(values, places, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(covering, np.float32)

    def align(self, values: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
        """Resample the cells that see the picture, so that the first one begins where the picture does.

        Args:
            values: Values of these cells, (h, w) or (C, h, w).
            stride: The map's stride.

        Returns:
            The values, (ceil(rows / stride), ceil(columns / stride)), or (C, ...) of them.
        """
        if not self.is_padded:
            return values
        size = -(-self.columns // stride), -(-self.rows // stride)
        x, y = (start % stride / stride for start in (self.left, self.top))
        shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        planes = [
            cv2.warpAffine(plane, shift, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            for plane in values.reshape(-1, *values.shape[-2:])
        ]
        return np.array(planes, np.float32).reshape(*values.shape[:-2], *size[::-1])
