"""Pictures to run a network on when no real frame is at hand."""

import numpy as np
from numpy.typing import NDArray

SHAPES = 60  # rectangles in a picture of 640 x 640; more in a larger one


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Draw textured rectangles of all sizes over a smooth background.

    Args:
        height: The height in pixels.
        width: The width in pixels.
        seed: What chooses the picture.

    Returns:
        The picture (1, 3, height, width), with values from 0 to 1.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    drawn = np.empty((3, height, width), np.float32)
    for channel in drawn:
        x, y, phase = random.uniform((-0.03, -0.03, 0), (0.03, 0.03, 6))
        channel[:] = 0.5 + 0.3 * np.sin(x * columns + y * rows + phase)
    for _ in range(max(8, SHAPES * height * width // 640**2)):
        h, w = (int(side) for side in np.exp(random.uniform(np.log(6), np.log(160), 2)))
        top, left = int(random.integers(-h // 2, height)), int(random.integers(-w // 2, width))
        area = drawn[:, max(0, top) : top + h, max(0, left) : left + w]
        texture = random.normal(0, random.uniform(0, 0.2), area.shape)
        area[:] = random.uniform(0, 1, (3, 1, 1)) + texture
    return np.clip(drawn, 0, 1)[np.newaxis]
