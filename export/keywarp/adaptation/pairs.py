"""Pairs of a key frame and a current frame, drawn from footage, with flows from elsewhere to learn from.

A pair may run backwards in time, because the flow from a frame to an earlier one is as good a lesson as the other. Of
large frames only a crop is taken, mostly where the features change: little moves in most of a picture, and what doesn't
move teaches little.
"""

from collections.abc import Iterator, Sequence
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

RIM = 16  # pixels along a crop's border that don't count, because they may come from outside of the crop
ANYWHERE = 0.25  # share of the crops that are taken anywhere


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Some pairs of one video, or crops (H, W) of them."""

    current: Tensor  # uint8 (N, H, W, 3), RGB
    key: Tensor  # uint8 (N, H, W, 3), RGB
    key_features: tuple[Tensor, ...]  # (N, C, h, w) float32 each
    target: tuple[Tensor, ...]  # the current frames' features, likewise
    chained: Tensor  # (N, 2, h, w) float32, chained DIS, (dx, dy) in cells of the finest map
    direct: Tensor  # (N, 2, h, w) float32, DIS between the two frames, likewise
    # (N, 1, h, w) float32, one for each map: 1 where a cell counts, 0 at a crop's rim and in padding
    counts: tuple[Tensor, ...]
    key_held: tuple[Tensor, ...] = ()  # the key frames' held tensors, (N, ...) float32
    held: tuple[Tensor, ...] = ()  # the current frames', likewise

    def to(self, device: torch.device) -> "PairBatch":
        """Return the batch on a device."""
        return PairBatch(
            self.current.to(device),
            self.key.to(device),
            tuple(x.to(device) for x in self.key_features),
            tuple(x.to(device) for x in self.target),
            self.chained.to(device),
            self.direct.to(device),
            tuple(x.to(device) for x in self.counts),
            tuple(x.to(device) for x in self.key_held),
            tuple(x.to(device) for x in self.held),
        )


class PairSampler:
    """Draws pairs uniformly over all videos, key frames and key ages."""

    def __init__(
        self, footage: Sequence[Footage], manifest: Manifest, max_age: int, seed: int = 0, crop: int | None = None
    ) -> None:
        """Find out which pairs there are.

        Args:
            footage: The videos' frames to learn from.
            manifest: The manifest of the bundle.
            max_age: The largest number of frames between the two.
            seed: Decides which pairs are drawn.
            crop: The side of the crops in pixels, or None for whole frames.

        Raises:
            FootageError: If there is no pair.
        """
        self._footage, self._max_age, self._seed, self._crop = footage, max_age, seed, crop
        self._strides = [f.stride for f in manifest.features]
        self._finest = manifest.features.index(manifest.finest)
        self._downscale = manifest.flow.downscale
        self._cell = manifest.finest.stride // manifest.flow.downscale  # pixels of the small images
        self._pairs = [_count_pairs(f.scenes, max_age) for f in footage]
        if not sum(self._pairs):
            raise FootageError(
                "there is no pair of frames without a cut between them to learn from: give longer videos"
            )

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
        windows = [self._draw_window(footage, random, *pair) for pair in pairs]
        chained = [self._in_cells(chained_flow(footage, *pair)) for pair in pairs]
        direct = [self._in_cells(self._direct_flow(footage, *pair)) for pair in pairs]
        current, key = zip(*pairs, strict=True)
        finest = self._strides[self._finest]
        return PairBatch(
            current=_stack([footage.frames[place][w.slices(1)] for place, w in zip(current, windows, strict=True)]),
            key=_stack([footage.frames[place][w.slices(1)] for place, w in zip(key, windows, strict=True)]),
            key_features=self._crops(footage, key, windows),
            target=self._crops(footage, current, windows),
            chained=_stack([flow[:, *w.slices(finest)] for flow, w in zip(chained, windows, strict=True)]),
            direct=_stack([flow[:, *w.slices(finest)] for flow, w in zip(direct, windows, strict=True)]),
            counts=tuple(
                _stack([(w.counting_cells(stride) * seen[w.slices(stride)])[np.newaxis] for w in windows])
                for stride, seen in zip(self._strides, self._seen(footage), strict=True)
            ),
            key_held=tuple(_stack([x[place].astype(np.float32) for place in key]) for x in footage.held),
            held=tuple(_stack([x[place].astype(np.float32) for place in current]) for x in footage.held),
        )

    def _seen(self, footage: Footage) -> Iterator[NDArray[np.float32]]:
        """Yield 1 for the cells of each map that see any of the picture, and 0 for those of padding, (h, w)."""
        for x, stride in zip(footage.features, self._strides, strict=True):
            seen = np.zeros(x.shape[2:], np.float32)
            seen[footage.placement.cells(stride)] = 1
            yield seen

    def _crops(self, footage: Footage, places: Sequence[int], windows: Sequence["_Window"]) -> tuple[Tensor, ...]:
        return tuple(
            _stack(
                [x[place][:, *w.slices(stride)].astype(np.float32) for place, w in zip(places, windows, strict=True)]
            )
            for x, stride in zip(footage.features, self._strides, strict=True)
        )

    def _draw_window(self, footage: Footage, random: np.random.Generator, current: int, key: int) -> "_Window":
        """Choose a crop, mostly around a cell whose features change, in proportion to the change."""
        size = (footage.frames.shape[1], footage.frames.shape[2])
        if self._crop is None or max(size) <= self._crop:
            return _Window(0, 0, *size, size)
        step = max(self._strides)
        height, width = (min(self._crop // step * step, side) for side in size)
        row, column = (random.random() * side for side in size)
        if random.random() >= ANYWHERE:
            stride, x = self._strides[self._finest], footage.features[self._finest]
            change = np.square(x[current].astype(np.float32) - x[key]).sum(axis=0)
            place = random.choice(change.size, p=(change / change.sum()).ravel()) if change.sum() > 0 else 0
            row, column = ((int(n) + 0.5) * stride for n in np.unravel_index(place, change.shape))
        # the centre is anywhere in the crop's inner half
        row, column = (n + (random.random() - 0.5) * side / 2 for n, side in ((row, height), (column, width)))
        top, left = (
            int(min(max(n - part / 2, 0), (side - part) // step * step) // step * step)
            for n, part, side in ((row, height, size[0]), (column, width, size[1]))
        )
        return _Window(top, left, top + height, left + width, size)

    def _draw_pair(self, footage: Footage, random: np.random.Generator) -> tuple[int, int]:
        while True:
            first = int(random.integers(len(footage)))
            last = first + int(random.integers(1, self._max_age + 1))
            if last < len(footage) and footage.scenes[first] == footage.scenes[last]:
                return (first, last) if random.integers(2) else (last, first)

    def _direct_flow(self, footage: Footage, current: int, key: int) -> Flow:
        placement = footage.placement
        pictures = (np.ascontiguousarray(placement.crop(footage.frames[place])) for place in (current, key))
        small = (downscale(placement.cover(picture), self._downscale) for picture in pictures)
        return DIS().estimate(*small)

    def _in_cells(self, flow: Flow) -> Flow:
        return np.asarray(to_cells(flow, self._cell)[0])


@dataclass(frozen=True)
class _Window:
    """A crop of a frame. Its top and left are multiples of all strides."""

    top: int  # pixels, as all of these
    left: int
    bottom: int
    right: int
    size: tuple[int, int]  # height and width of the frame

    def slices(self, stride: int) -> tuple[slice, slice]:
        """Return the crop's rows and columns in a map of a stride."""
        return (
            slice(self.top // stride, -(-self.bottom // stride)),
            slice(self.left // stride, -(-self.right // stride)),
        )

    def counting_cells(self, stride: int) -> NDArray[np.float32]:
        """Return 1 for the crop's cells that count, and 0 for those at a border that isn't the frame's, (h, w)."""
        rows, columns = self.slices(stride)
        cells, rim = np.ones((rows.stop - rows.start, columns.stop - columns.start), np.float32), RIM // stride
        if self.top:
            cells[:rim] = 0
        if self.left:
            cells[:, :rim] = 0
        if self.bottom < self.size[0]:
            cells[cells.shape[0] - rim :] = 0
        if self.right < self.size[1]:
            cells[:, cells.shape[1] - rim :] = 0
        return cells


def _stack(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


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
