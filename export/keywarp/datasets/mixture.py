"""A mixture of labelled sources, as of ImageNet VID and DET at 2:1 (section 5.1 of the paper)."""

from collections.abc import Sequence

import numpy as np

from keywarp.datasets.samples import MAX_GAP, FramePair, PairSource


class Mixture:
    """Draws each pair from one of several sources, chosen in proportion to their weights, not to their sizes.

    Mixture([(ImageNetVid(root), 2), (ImageNetDet(root), 1)])
    """

    def __init__(self, parts: Sequence[tuple[PairSource, float]]) -> None:
        """Mix sources.

        Args:
            parts: Each source with its weight, in any unit.

        Raises:
            ValueError: There is none, or a weight isn't a positive number.
        """
        weights = np.array([weight for _, weight in parts], np.float64)
        if not parts or not np.isfinite(weights).all() or (weights <= 0).any():
            raise ValueError(f"a mixture needs sources with positive weights, not {weights.tolist()}")
        self._sources = [source for source, _ in parts]
        self._shares = weights / weights.sum()

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw one.

        Raises:
            DataError: As the source that it is drawn from.
        """
        return self._sources[int(random.choice(len(self._sources), p=self._shares))].pair(random, max_gap)
