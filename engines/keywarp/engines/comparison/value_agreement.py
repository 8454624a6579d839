"""Agreement of two dense maps on one frame, whatever their values mean.

Values have no scale that holds for every map: depth may be in metres, or inverse and up to a factor and an offset, and
a heat map is 0 nearly everywhere. So they are compared in units of the range that they have on the frame, and each part
of that range counts the same, however few pixels it has.
"""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.result import DenseMap, Output

TOLERANCE = 0.05  # of the range; the largest distance of values that agree
BANDS = 10  # equal parts of the range
OUTLIERS = 0.001  # share of the pixels on each side that the range leaves out
MILLION = 1_000_000

Counts = NDArray[np.int64]


class ValueAgreement:
    """Agreement of dense maps: the share of pixels whose values are close, a mean over parts of the range of values.

    The range is that of the expected map, without its most extreme 0.1 % of pixels on each side. Two values agree if
    they are at most 5 % of it apart, or on the same side outside of it. The range is split into ten bands. In each band
    the agreement is the share of pixels that agree, among those that have a value in it in either map (Dice). The mean
    is over the bands that the expected maps contain.

    Counts are int64 (10, 5), for each band the number of pixels

    - that are found in it and agree,
    - that are expected in it and agree,
    - that are found in it,
    - that are expected in it,

    and the sum of the distances of the pixels that are expected in it, in millionths of the range.
    """

    name = f"within {100 * TOLERANCE:g} %"
    sameness_name = f"values within {100 * TOLERANCE:g} %"

    def count(self, found: Output, expected: Output) -> Counts:
        """See `Measure.count`. Counts are pixels at the head's resolution."""
        assert isinstance(found, DenseMap)
        assert isinstance(expected, DenseMap)
        first, second = found.values.astype(np.float64).ravel(), expected.values.astype(np.float64).ravel()
        low, high = value_range(expected.values)
        span = high - low
        distance = np.abs(first - second)
        beyond = (np.minimum(first, second) > high) | (np.maximum(first, second) < low)
        rounding = np.finfo(np.float32).eps * max(abs(low), abs(high))
        near = beyond | (distance <= max(TOLERANCE * span, rounding))
        relative = np.where(beyond, 0.0, np.minimum(distance / span, 1.0) if span else ~near)
        in_found, in_expected = (_bands(values, low, span) for values in (first, second))
        columns = (
            np.bincount(in_found[near], minlength=BANDS),
            np.bincount(in_expected[near], minlength=BANDS),
            np.bincount(in_found, minlength=BANDS),
            np.bincount(in_expected, minlength=BANDS),
            np.rint(np.bincount(in_expected, MILLION * relative, BANDS)),
        )
        return np.stack(columns, axis=1).astype(np.int64)

    def agreement(self, counts: Counts) -> float:
        """See `Measure.agreement`."""
        seen = counts[:, 3] > 0
        found_near, expected_near, found, expected, _ = counts[seen].T
        return float(((found_near + expected_near) / (found + expected)).mean()) if seen.any() else 1.0

    def sameness(self, counts: Counts) -> float:
        """See `Measure.sameness`."""
        return self.agreement(counts)

    def mistakes(self, counts: Counts) -> int:
        """See `Measure.mistakes`."""
        _, near, _, expected, _ = counts.sum(axis=0).tolist()
        return int(expected - near)

    def figures(self, counts: Counts) -> dict[str, float]:
        """Return the share of all pixels that agree, and the mean distance as a share of the range."""
        _, near, _, expected, distances = counts.sum(axis=0).tolist()
        if not expected:
            return {"pixels": 1.0, "error": 0.0}
        return {"pixels": near / expected, "error": distances / MILLION / expected}


def value_range(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the range of a map's values, without outliers."""
    ordered = values.ravel()
    first = int(OUTLIERS * ordered.size)
    last = ordered.size - 1 - first
    low, high = np.partition(ordered, [first, last])[[first, last]].tolist()
    return low, high


def _bands(values: NDArray[np.float64], low: float, span: float) -> NDArray[np.intp]:
    """Return the number of the band that each value is in; values outside of the range are in the outer ones."""
    if not span:
        return np.zeros(values.shape, np.intp)
    return np.clip((values - low) * (BANDS / span), 0, BANDS - 1).astype(np.intp)
