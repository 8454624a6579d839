"""Dense SIFT: a descriptor of 128 values for every pixel's neighbourhood (Liu et al. 2011, section 2)."""

import cv2
import numpy as np
from numpy.typing import NDArray

CELLS = 4  # number of cells along each side of the neighbourhood
ORIENTATIONS = 8
CHANNELS = CELLS * CELLS * ORIENTATIONS
SHARPNESS = 9  # exponent of the cosine; the higher, the less a gradient counts for neighbouring orientations
SHOULDER = 0.25  # weight of the pixels next to a cell, which makes descriptors change smoothly
NOISE = 0.01  # descriptor norm below which contrast counts as noise, in grey levels of 0..1
DERIVATIVE = np.array([1, -8, 0, 8, -1], np.float32) / 12  # fourth-order central difference


def dense_sift(image: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    """Describe every pixel by the gradient orientations in the 4 x 4 cells around it.

    A pixel's gradient is that of its strongest colour channel. Cells outside of the image repeat the nearest ones.

    Args:
        image: The image, (H, W, C).
        cell: The side of a cell in pixels. The neighbourhood is 4 cells wide and high.

    Returns:
        The descriptors, (H, W, 128), by cell row, cell column and orientation. Their Euclidean norm is 255, or less
        where the contrast is low.
    """
    bands = _sum_cells(_orientation_bands(image), cell)  # (H, W, 8)
    height, width = bands.shape[:2]
    # distances from a pixel to its first and last cell
    before, after = 2 * cell - cell // 2, (CELLS // 2 - 1) * cell + cell // 2
    bands = np.pad(bands, ((before, after), (before, after), (0, 0)), mode="edge")
    energy = np.square(bands).sum(axis=-1)

    corners = [(row * cell, column * cell) for row in range(CELLS) for column in range(CELLS)]
    norm = np.sqrt(sum(energy[y : y + height, x : x + width] for y, x in corners))
    gain = (255 / (norm + NOISE))[..., None]
    descriptors = np.empty((height, width, CHANNELS), np.uint8)
    for number, (y, x) in enumerate(corners):
        channels = slice(number * ORIENTATIONS, (number + 1) * ORIENTATIONS)
        descriptors[..., channels] = bands[y : y + height, x : x + width] * gain
    return descriptors


def _orientation_bands(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the strength of each pixel's gradient in each orientation, (H, W, 8)."""
    grey = image.astype(np.float32) / 255
    identity = np.ones(1, np.float32)
    dx = cv2.sepFilter2D(grey, -1, DERIVATIVE, identity, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)
    dy = cv2.sepFilter2D(grey, -1, identity, DERIVATIVE, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)
    strongest = (dx**2 + dy**2).argmax(axis=-1)[..., None]
    dx, dy = (np.take_along_axis(gradient, strongest, axis=-1) for gradient in (dx, dy))  # (H, W, 1)
    strength = np.hypot(dx, dy)
    angles = np.arange(ORIENTATIONS, dtype=np.float32) * np.float32(2 * np.pi / ORIENTATIONS)
    cosine = (dx * np.cos(angles) + dy * np.sin(angles)) / np.maximum(strength, np.finfo(np.float32).tiny)
    bands: NDArray[np.float32] = strength * np.maximum(cosine, 0) ** SHARPNESS
    return bands


def _sum_cells(bands: NDArray[np.float32], cell: int) -> NDArray[np.float32]:
    """Return the weighted sums over the cell around each pixel and the cell's shoulders, (H, W, 8)."""
    window = np.array([SHOULDER, *[1] * cell, SHOULDER], np.float32)
    centre = (1 + cell // 2, 1 + cell // 2)
    sums = cv2.sepFilter2D(bands, -1, window, window, anchor=centre, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(sums, dtype=np.float32)
