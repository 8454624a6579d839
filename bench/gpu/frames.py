"""Frames that move, made with numpy."""

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]


def moving_frames(count: int, height: int, width: int, seed: int = 0) -> list[Frame]:
    """Return frames of a texture that moves by a few pixels a frame, with brighter boxes that move otherwise.

    Args:
        count: The number of frames.
        height: Their height in pixels.
        width: Their width in pixels.
        seed: The seed of all that is random.

    Returns:
        Frames, uint8 (H, W, 3).
    """
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 215, (-(-height // 8) + 16, -(-width // 8) + 16, 3))
    texture = np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)
    boxes = [(*rng.integers(0, (height, width)), *rng.integers(-3, 4, 2), rng.integers(0, 256, 3)) for _ in range(6)]
    side = max(8, min(height, width) // 6)
    frames = []
    for number in range(count):
        left, top = (2 * number) % 64, number % 64
        frame = texture[top : top + height, left : left + width].copy()
        for y, x, dy, dx, color in boxes:
            row, column = (y + dy * number) % height, (x + dx * number) % width
            frame[row : row + side, column : column + side] = color
        frames.append(frame.astype(np.uint8))
    return frames
