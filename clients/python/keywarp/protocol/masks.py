"""Encode masks for the wire."""

import numpy as np
from numpy.typing import NDArray

from keywarp.protocol.messages import RunLengths


def run_lengths(mask: NDArray[np.bool_]) -> RunLengths:
    """Encode a mask of shape (h, w) as COCO's uncompressed RLE."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=pixels.size).tolist()
    height, width = mask.shape
    return RunLengths(size=(height, width), counts=(0, *counts) if pixels[0] else tuple(counts))
