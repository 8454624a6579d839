"""Draw the masks and keypoints of objects."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Color = tuple[int, int, int]  # RGB

OPACITY = 0.4  # of a mask over the picture
CERTAIN = 0.5  # least confidence of the keypoints that are drawn
CASING = (14, 18, 24, 160)  # RGBA; around points and lines, so that they stand out from any background
INK = (255, 255, 255)


def draw_mask(picture: NDArray[np.uint8], mask: NDArray[np.bool_], color: Color, line: int) -> None:
    """Tint a mask, and draw a line along its edge.

    Args:
        picture: The picture, RGB (H, W, 3), which is changed.
        mask: The mask, (h, w), of the whole picture at any resolution.
        color: The colour.
        line: The width of the line in pixels.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    height, width = picture.shape[:2]
    across, down = width / mask.shape[1], height / mask.shape[0]
    left, right = int(columns[0] * across), min(width, int(np.ceil((columns[-1] + 1) * across)))
    top, bottom = int(rows[0] * down), min(height, int(np.ceil((rows[-1] + 1) * down)))
    # Only this part is enlarged. Bilinear scaling and a threshold give smooth edges, without steps.
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    part = (left / across, top / down, right / across, bottom / down)
    size = (right - left, bottom - top)
    inside = np.asarray(grey.resize(size, Image.Resampling.BILINEAR, box=part)) >= 128
    area = picture[top:bottom, left:right]
    tint = np.array(color, np.float32) * OPACITY
    area[inside] = (area[inside] * (1 - OPACITY) + tint).astype(np.uint8)
    area[inside & ~_eroded(inside, line)] = color


def _eroded(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Return the pixels whose neighbours at a distance are in the mask, too; those outside of the array aren't."""
    padded = np.pad(mask, pixels)
    height, width = mask.shape
    middle = slice(pixels, pixels + height), slice(pixels, pixels + width)
    inner = mask.copy()
    for shift in (0, 2 * pixels):
        inner &= padded[shift : shift + height, middle[1]] & padded[middle[0], shift : shift + width]
    return inner


def draw_keypoints(
    pen: ImageDraw.ImageDraw,
    points: Sequence[tuple[float, float, float]],
    skeleton: Iterable[tuple[int, int]],
    color: Color,
    line: int,
) -> None:
    """Draw the certain keypoints of an object, and the lines between them.

    Args:
        pen: Draws on the picture, with transparency.
        points: x and y in pixels of the picture, and confidence, for each point.
        skeleton: The indices of points that lines join.
        color: The colour of the lines and around the points.
        line: The width of the lines in pixels.
    """
    certain = {number: (x, y) for number, (x, y, score) in enumerate(points) if score >= CERTAIN}
    joined = [(certain[a], certain[b]) for a, b in skeleton if a in certain and b in certain]
    for wide, ink in ((line + 2, CASING), (line, color)):
        for ends in joined:
            pen.line(ends, fill=ink, width=wide)
    for place in certain.values():
        pen.circle(place, line + 1, fill=color)
        pen.circle(place, max(1, line - 1), fill=INK)
