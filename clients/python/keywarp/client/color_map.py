"""Colours for the numbers of dense maps, such as depth."""

import numpy as np
from numpy.typing import NDArray

# Inferno, which matplotlib gave to the public domain (CC0): ever brighter, and so for people who see no red or green.
ANCHORS = (
    (0, 0, 4),
    (11, 7, 36),
    (33, 12, 74),
    (61, 9, 101),
    (87, 16, 110),
    (113, 25, 110),
    (138, 34, 106),
    (163, 44, 97),
    (188, 55, 84),
    (208, 69, 69),
    (227, 89, 51),
    (241, 113, 31),
    (249, 140, 10),
    (252, 170, 15),
    (249, 201, 50),
    (242, 232, 101),
    (252, 255, 164),
)
PALETTE: NDArray[np.uint8] = (
    np.stack(  # RGB (256, 3), from the lowest number to the highest
        [
            np.interp(np.linspace(0, len(ANCHORS) - 1, 256), np.arange(len(ANCHORS)), channel)
            for channel in zip(*ANCHORS, strict=True)
        ],
        axis=1,
    )
    .round()
    .astype(np.uint8)
)


def colorize(values: NDArray[np.float32], minimum: float, maximum: float) -> NDArray[np.uint8]:
    """Give numbers their colours.

    Args:
        values: The numbers, (h, w).
        minimum: The number of the first colour. Lower ones have it, too.
        maximum: The number of the last colour. Higher ones have it, too.

    Returns:
        The colours, RGB (h, w, 3).
    """
    steps = (values - minimum) * (255 / ((maximum - minimum) or 1.0))
    colors: NDArray[np.uint8] = PALETTE[np.clip(steps, 0, 255).round().astype(np.uint8)]
    return colors
