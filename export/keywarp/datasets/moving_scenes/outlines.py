"""The outlines of objects, as polygons inside the unit circle. The y axis points down."""

import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Outline = Literal["disc", "square", "triangle", "star", "ring", "arrow", "piece"]
Contour = npt.NDArray[np.float64]  # (n, 2): x, y
Coverage = npt.NDArray[np.uint8]  # (n, n): 255 inside, 0 outside, values in between on the edge

_OVERSAMPLING = 4  # cells per pixel along each axis
_SHIFT = 4  # fractional bits of the corners' coordinates for OpenCV


def draw_outline(outline: Outline, random: np.random.Generator) -> list[Contour]:
    """Draw a random variant of an outline, as its contour and, if it has a hole, the hole's contour."""
    stretch = np.array([1, random.uniform(0.78, 1)])
    return [contour * stretch for contour in _contours(outline, random)]


def rasterise(contours: list[Contour], size: int, margin: float) -> Coverage:
    """Rasterise contours.

    Args:
        contours: Contours inside the unit circle. An area inside two of them is a hole.
        size: The side of the image in pixels.
        margin: Half of the image's side, in radii of the unit circle.
    """
    cells = size * _OVERSAMPLING
    # the outermost pixels' centres are at +-margin, as in `Sprite`; a pixel is `_OVERSAMPLING` cells wide
    scale, middle = (size - 1) / (2 * margin) * _OVERSAMPLING, (cells - 1) / 2
    corners = [np.rint((middle + scale * contour) * (1 << _SHIFT)).astype(np.int32) for contour in contours]
    canvas = np.zeros((cells, cells), np.uint8)
    cv2.fillPoly(canvas, corners, [255], shift=_SHIFT)
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _contours(outline: Outline, random: np.random.Generator) -> list[Contour]:
    match outline:
        case "disc":
            return [_circle(1)]
        case "ring":
            return [_circle(1), _circle(random.uniform(0.4, 0.6))]
        case "square":
            return [_polar(np.pi / 4 + np.arange(4) * np.pi / 2 + random.normal(0, 0.06, 4), np.ones(4))]
        case "triangle":
            return [_polar(-np.pi / 2 + np.arange(3) * 2 * np.pi / 3 + random.normal(0, 0.12, 3), np.ones(3))]
        case "star":
            points = int(random.integers(5, 7))
            radii = np.tile([1.0, random.uniform(0.4, 0.55)], points)
            return [_polar(-np.pi / 2 + np.arange(2 * points) * np.pi / points, radii)]
        case "arrow":
            return [_arrow(random)]
        case "piece":
            corners = int(random.integers(5, 9))
            angles = (np.arange(corners) + random.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
            return [_polar(angles, random.uniform(0.45, 1, corners))]


def _circle(radius: float) -> Contour:
    return _polar(np.linspace(0, 2 * math.pi, 48, endpoint=False), np.full(48, radius))


def _polar(angles: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> Contour:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _arrow(random: np.random.Generator) -> Contour:
    """Return an arrow that points to the right."""
    neck, shaft, barb = random.uniform(-0.15, 0.25), random.uniform(0.22, 0.36), random.uniform(0.7, 0.85)
    upper = [(1, 0), (neck, -barb), (neck, -shaft), (-0.92, -shaft)]
    return np.array(upper + [(x, -y) for x, y in reversed(upper[1:])], np.float64)
