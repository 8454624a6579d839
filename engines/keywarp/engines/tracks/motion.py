"""Move boxes as the motion source saw the picture move."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]  # (n, 4): x1, y1, x2, y2 in pixels of the frame
Flow = NDArray[np.float32]  # (2, h, w), to the key frame, (dx, dy) in cells

COLUMNS: Final = 5  # points across a box at which its motion is read
ROWS: Final = 9
CORE: Final = 1.0  # of a box's width and height, in its middle: around it there is mostly background
STEPS: Final = 3  # to invert the flow; a step reads it where the last one led to


def displacements(
    boxes: Boxes, before: Flow | None, now: Flow, height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far boxes on one frame move to another frame with the same key frame.

    Both flows lead to the key frame. Points of a box are followed along the first one to the key frame, and from
    there, against the second one, to the other frame. The median of their displacements is the box's.

    Args:
        boxes: The boxes on the first frame.
        before: The first frame's flow, or None if it is the key frame.
        now: The other frame's flow.
        height: The frames' height in pixels.
        width: The frames' width in pixels.

    Returns:
        (n, 2), dx and dy in pixels; and (n, 1), how far the points disagree with them: the median in pixels. Where an
        object has come since the key frame, its points lead anywhere.
    """
    rows, columns = now.shape[1:]
    unit = np.array([width / columns, height / rows])  # pixels in a cell
    corner, size = boxes[:, np.newaxis, :2] / unit, (boxes[:, np.newaxis, 2:] - boxes[:, np.newaxis, :2]) / unit
    points = corner + size * _points()  # (n, ROWS * COLUMNS, 2) in cells, whose first begins at 0
    to_key = 0.0 if before is None else _read(before, points)
    moved = np.zeros((len(boxes), 1, 2))
    for _ in range(STEPS):
        each = to_key - _read(now, points + moved)
        moved = np.median(each, axis=1, keepdims=True)
    spread = np.median(np.linalg.norm((each - moved) * unit, axis=2), axis=1, keepdims=True)
    return moved[:, 0] * unit, spread


def _points() -> NDArray[np.float64]:
    """Return points in the middle of a box, (ROWS * COLUMNS, 2), x and y from 0 to 1."""
    ys, xs = (0.5 + CORE * (np.arange(count) / (count - 1) - 0.5) for count in (ROWS, COLUMNS))
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)


def _read(flow: Flow, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sample a flow bilinearly. Beyond the border it repeats the nearest cells."""
    places = (points - 0.5).astype(np.float32)
    sampled = [cv2.remap(part, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for part in flow]  # type: ignore[call-overload]
    return np.stack(sampled, axis=-1).astype(np.float64)
