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


def window_run_lengths(window: NDArray[np.bool_], left: int, top: int, height: int, width: int) -> RunLengths:
    """Encode a mask of which only a window is known, as `run_lengths` encodes the whole mask. It takes far less time.

    Args:
        window: The pixels of the window, (h, w). No pixel outside of it is in the mask.
        left: The window's first column in the mask.
        top: Its first row.
        height: The height of the whole mask.
        width: Its width.
    """
    rows, columns = window.shape
    padded = np.zeros((columns, rows + 1), np.bool_)  # so that no run goes on in the next column
    padded[:, :rows] = window.T
    pixels = padded.ravel()
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    if pixels.size and pixels[0]:
        edges = np.concatenate(([0], edges))
    column, row = np.divmod(edges, rows + 1)
    places = (left + column) * height + top + row  # where runs start and end, alternately
    follows = np.flatnonzero(places[1:-1:2] == places[2::2])  # runs that do go on
    places = np.delete(places, np.concatenate((2 * follows + 1, 2 * follows + 2)))
    counts = np.diff(places, prepend=0, append=height * width).tolist()
    return RunLengths(size=(height, width), counts=tuple(counts if counts[-1] or len(counts) == 1 else counts[:-1]))
