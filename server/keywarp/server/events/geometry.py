"""Places on a frame: zones and lines. Coordinates are shares of the frame's width and height."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from keywarp.protocol.events import Direction, Line, Zone

Points = NDArray[np.float64]  # (n, 2)

MARGIN: Final = 0.005  # from a line, within which an object is on neither side, so that a shaking box doesn't cross


def inside(zone: Zone, points: Points) -> NDArray[np.bool_]:
    """Return which points are inside a zone, (n,), by the even-odd rule."""
    corners = np.array(zone)
    (x1, y1), (x2, y2) = corners.T[:, np.newaxis], np.roll(corners, -1, axis=0).T[:, np.newaxis]
    x, y = points[:, :1], points[:, 1:]
    spans = (y1 > y) != (y2 > y)
    height = np.where(y2 == y1, 1.0, y2 - y1)
    right_of = x < (x2 - x1) * (y - y1) / height + x1
    return np.asarray((spans & right_of).sum(axis=1) % 2 == 1)


def zone_mask(zone: Zone, height: int, width: int) -> NDArray[np.bool_]:
    """Return the pixels of a map whose centres are in a zone, (height, width)."""
    xs = (np.arange(width) + 0.5) / width
    rows = [inside(zone, np.stack([xs, np.full(width, (y + 0.5) / height)], axis=1)) for y in range(height)]
    return np.stack(rows)


def side(line: Line, point: tuple[float, float]) -> int:
    """Return on which side of a line a point is: -1 left, 1 right, 0 on neither.

    Left and right are as seen from the line's first point to its second, on a frame whose y points down.
    """
    (x1, y1), (x2, y2) = line
    length = np.hypot(x2 - x1, y2 - y1) or 1.0
    distance = ((x2 - x1) * (point[1] - y1) - (y2 - y1) * (point[0] - x1)) / length
    return 0 if abs(distance) < MARGIN else int(np.sign(distance))


def crossing(line: Line, before: tuple[float, float], now: tuple[float, float]) -> Direction | None:
    """Return to which side a way from one point to another crosses a line, or None if it doesn't.

    Both points must be on a side of the line.
    """
    first, last = side(line, before), side(line, now)
    if not first or not last or first == last:
        return None
    way = (before, now)
    ends = _turn(way, line[0]), _turn(way, line[1])
    if ends[0] * ends[1] > 0:
        return None  # it passes beyond one of the ends
    return "right" if last > 0 else "left"


def _turn(line: Line, point: tuple[float, float]) -> float:
    (x1, y1), (x2, y2) = line
    return (x2 - x1) * (point[1] - y1) - (y2 - y1) * (point[0] - x1)
