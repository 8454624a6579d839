"""The error of propagated features, relative to the error of copied ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEAST_VARIANCE = 1e-3  # of a channel that counts, as a share of its map's mean variance

Maps = Sequence[NDArray[np.floating]]  # a frame's feature maps, (C, h, w) each
Channels = NDArray[np.float64]  # one value for each channel of all maps, one map after the other


def squared_error(first: Maps, second: Maps) -> Channels:
    """Return the mean over the cells of the squared difference, for each channel of all maps."""
    errors = []
    for one, other in zip(first, second, strict=True):
        difference = one.astype(np.float32) - other.astype(np.float32)
        errors.append(np.einsum("chw,chw->c", difference, difference).astype(np.float64) / difference[0].size)
    return np.concatenate(errors)


def moments(maps: Maps) -> NDArray[np.float64]:
    """Return each channel's mean and mean square, (2, channels of all maps)."""
    means = [m.mean(axis=(1, 2), dtype=np.float64) for m in maps]
    squares = [np.square(m, dtype=np.float64).mean(axis=(1, 2)) for m in maps]
    return np.stack([np.concatenate(means), np.concatenate(squares)])


def relative_error(
    warped: Channels, copied: Channels, sums: NDArray[np.float64], frames: int, maps: Sequence[int]
) -> float | None:
    """Return ||warped - true|| / ||copied - true||, with each channel divided by its standard deviation.

    Each channel of each map counts the same. Channels that hardly vary beside the others of their map are left out,
    since their share would be as large as it is meaningless.

    Args:
        warped: The sums over frames of the warped features' squared errors.
        copied: The same of the copied features.
        sums: The sums over frames of `moments`.
        frames: The number of frames in `sums`.
        maps: The number of channels of each map.

    Returns:
        The relative error, or None if copied features are exact, so that nothing can be relative to their error.
    """
    mean, square = sums / frames
    variance = square - mean**2
    parts = np.split(variance, np.cumsum(maps)[:-1])
    varies = np.concatenate([part > LEAST_VARIANCE * part.mean() for part in parts])
    whole = float((copied[varies] / variance[varies]).sum())
    return float(np.sqrt((warped[varies] / variance[varies]).sum() / whole)) if whole > 0 else None
