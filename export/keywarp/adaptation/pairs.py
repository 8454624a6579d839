"""Pairs of a key frame and a current frame, drawn from footage, with flows from elsewhere to learn from.

A pair may run backwards in time, because the flow from a frame to an earlier one is as good a lesson as the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keywarp.adaptation.errors import FootageError
from keywarp.adaptation.footage import Footage, downscale
from keywarp.engines import Manifest
from keywarp.engines.motion import DIS, to_cells
from keywarp.engines.motion.tracking import compose

Flow = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Some pairs of one video."""

    current: Tensor  # uint8 (N, H, W, 3), RGB
    key: Tensor  # uint8 (N, H, W, 3), RGB
    key_features: tuple[Tensor, ...]  # (N, C, h, w) float32 each
    target: tuple[Tensor, ...]  # the current frames' features, likewise
    chained: Tensor  # (N, 2, h, w) float32, chained DIS, (dx, dy) in cells of the finest map
    direct: Tensor  # (N, 2, h, w) float32, DIS between the two frames, likewise

    def to(self, device: torch.device) -> "PairBatch":
        """Return the batch on a device."""
        return PairBatch(
            self.current.to(device),
            self.key.to(device),
            tuple(x.to(device) for x in self.key_features),
            tuple(x.to(device) for x in self.target),
            self.chained.to(device),
            self.direct.to(device),
        )


class PairSampler:
    """Draws pairs uniformly over all videos, key frames and key ages."""

    def __init__(self, footage: Sequence[Footage], manifest: Manifest, max_age: int, seed: int = 0) -> None:
        """Find out which pairs there are.

        Args:
            footage: The videos' frames to learn from.
            manifest: The manifest of the bundle.
            max_age: The largest number of frames between the two.
            seed: Decides which pairs are drawn.

        Raises:
            FootageError: If there is no pair.
        """
        self._footage, self._max_age, self._seed = footage, max_age, seed
        self._downscale = manifest.flow.downscale
        self._cell = manifest.finest.stride // manifest.flow.downscale  # pixels of the small images
        self._pairs = [_count_pairs(f.scenes, max_age) for f in footage]
        if not sum(self._pairs):
            raise FootageError("there is no pair of frames without a cut between them to learn from: give longer videos")

    def __len__(self) -> int:
        """Return the number of different pairs, counting each direction of time."""
        return 2 * sum(self._pairs)

    def draw(self, step: int, batch: int) -> PairBatch:
        """Draw the pairs of a step. The same step always gets the same pairs.

        Args:
            step: The step's number.
            batch: The number of pairs.
        """
        random = np.random.default_rng((self._seed, step))
        footage = self._footage[random.choice(len(self._footage), p=np.array(self._pairs) / sum(self._pairs))]
        pairs = [self._draw_pair(footage, random) for _ in range(batch)]
        current, key = (list(places) for places in zip(*pairs, strict=True))
        return PairBatch(
            current=torch.from_numpy(footage.frames[current]),
            key=torch.from_numpy(footage.frames[key]),
            key_features=tuple(torch.from_numpy(x[key].astype(np.float32)) for x in footage.features),
            target=tuple(torch.from_numpy(x[current].astype(np.float32)) for x in footage.features),
            chained=self._in_cells([chained_flow(footage, *pair) for pair in pairs]),
            direct=self._in_cells([self._direct_flow(footage, *pair) for pair in pairs]),
        )

    def _draw_pair(self, footage: Footage, random: np.random.Generator) -> tuple[int, int]:
        while True:
            first = int(random.integers(len(footage)))
            last = first + int(random.integers(1, self._max_age + 1))
            if last < len(footage) and footage.scenes[first] == footage.scenes[last]:
                return (first, last) if random.integers(2) else (last, first)

    def _direct_flow(self, footage: Footage, current: int, key: int) -> Flow:
        small = (downscale(footage.frames[place], self._downscale) for place in (current, key))
        return DIS().estimate(*small)

    def _in_cells(self, flows: list[Flow]) -> Tensor:
        return torch.from_numpy(np.concatenate([to_cells(flow, self._cell) for flow in flows]))


def chained_flow(footage: Footage, current: int, key: int) -> Flow:
    """Compose the flow from the current to the key frame of the flows between successive frames.

    Args:
        footage: The frames, which must be of one scene from one place to the other.
        current: The current frame's place.
        key: The key frame's place, before or after it.

    Returns:
        The flow, (h, w, 2), in pixels of the small images.
    """
    forwards = current > key  # in time
    steps = footage.back if forwards else footage.ahead
    places = range(key + 1, current + 1) if forwards else range(key - 1, current - 1, -1)
    flow: Flow | None = None
    for place in places:
        step = steps[place].astype(np.float32)
        flow = step if flow is None else compose(step, flow)
    assert flow is not None
    return flow


def _count_pairs(scenes: NDArray[np.intp], max_age: int) -> int:
    return sum(int((scenes[age:] == scenes[:-age]).sum()) for age in range(1, min(max_age, len(scenes) - 1) + 1))
