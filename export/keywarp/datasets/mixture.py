"""Mixtures of labelled sources, such as ImageNet VID and DET at 2:1 (section 5.1 of the paper)."""

from collections.abc import Sequence

import numpy as np

from keywarp.datasets.samples import MAX_GAP, FramePair, PairSource


class Mixture:
    """A source that draws each pair from one of several sources, in proportion to their weights, not to their sizes.

    Mixture([(ImageNetVid(root), 2), (ImageNetDet(root), 1)])
    """

    def __init__(self, parts: Sequence[tuple[PairSource, float]]) -> None:
        """Mix sources.

        Args:
            parts: The sources with their weights, in any unit.

        Raises:
            ValueError: If there is no source, or a weight isn't a positive number.
        """
        weights = np.array([weight for _, weight in parts], np.float64)
        if not parts or not np.isfinite(weights).all() or (weights <= 0).any():
            raise ValueError(f"a mixture needs sources with positive weights, not {weights.tolist()}")
        self._sources = [source for source, _ in parts]
        self._shares = weights / weights.sum()

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw a pair.

        Raises:
            DataError: If the source that it is drawn from can't provide it.
        """
        return self._sources[int(random.choice(len(self._sources), p=self._shares))].pair(random, max_gap)
