"""Find the indices of the highest scores."""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.jit import jit_or


def best_indices(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the indices of the highest scores.

    Args:
        scores: The scores, (n,). NaN is never among the best.
        count: The most indices to return.

    Returns:
        The indices, with the highest score first, and with the lower index first among equal scores.
    """
    keys = _keys(scores)
    if count < len(keys):
        keys = np.partition(keys, count - 1)[:count]
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)


def _key_arrays(scores: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return what `_keys` returns, with array operations."""
    indices = np.flatnonzero(~np.isnan(scores))
    pattern = (scores[indices] + np.float32(0)).view(np.uint32).astype(np.uint64)
    descending = np.where(pattern >> np.uint64(31), pattern, pattern ^ np.uint64(0x7FFFFFFF))
    return np.asarray(descending << np.uint64(32) | indices.astype(np.uint64))


@jit_or(_key_arrays)
def _keys(scores: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return integers whose ascending order is the ranking: the descending score in the high bits, the index below.

    No two are equal, so neither partition nor sort has to be stable. The bits of floats order like integers, except for
    the sign bit, and in reverse for negative floats.
    """
    keys = np.empty(len(scores), np.uint64)
    bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0
    valid = 0
    for index in range(len(scores)):
        if np.isnan(scores[index]):
            continue
        pattern = np.uint64(bits[index])
        descending = pattern if pattern >> np.uint64(31) else pattern ^ np.uint64(0x7FFFFFFF)
        keys[valid] = descending << np.uint64(32) | np.uint64(index)
        valid += 1
    return keys[:valid]
