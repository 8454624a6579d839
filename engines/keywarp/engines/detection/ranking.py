"""The best of many scores."""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.jit import jit


def best(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Where the highest scores are.

    Args:
        scores: (n,); those that aren't numbers are never among the best.
        count: How many to find.

    Returns:
        At most `count` indices, of the highest score first; of equal scores the lower index first.
    """
    keys = _keys(scores)
    if count < len(keys):
        keys = np.partition(keys, count - 1)[:count]
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)


@jit
def _keys(scores: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Integers whose ascending order is that of the ranking: descending score above, index below.

    No two are equal, so neither partition nor sort need be stable. The bits of floats order like integers, but for the
    sign bit, and for the negative ones backwards.
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
