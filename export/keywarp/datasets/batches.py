"""Batches for training.

A sample depends only on the seed and its number. Neither the process that draws it nor an interruption of the
training makes a difference.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from keywarp.datasets.augmentation import Augmentation
from keywarp.datasets.errors import DataError
from keywarp.datasets.samples import MAX_GAP, Boxes, FlowPair, FlowSource, FramePair, PairSource

Sample = TypeVar("Sample")
Batch_co = TypeVar("Batch_co", covariant=True)


@dataclass(frozen=True)
class PairBatch:
    """Pairs for joint training. Only the current frame is labelled."""

    numbers: tuple[int, ...]  # numbers of the samples, counted over the whole training
    current: Tensor  # uint8 (N, H, W, 3) RGB
    key: Tensor  # uint8 (N, H, W, 3) RGB
    propagated: Tensor  # bool (N,): False where current and key are the same frame
    labels: Tensor | None  # uint8 (N, H, W); None unless all samples have labels
    boxes: tuple[Boxes, ...]  # the boxes of each sample that has boxes


@dataclass(frozen=True)
class FlowBatch:
    """Pairs with known motion, for pre-training a flow network."""

    numbers: tuple[int, ...]  # numbers of the samples, counted over the whole training
    current: Tensor  # uint8 (N, H, W, 3) RGB
    key: Tensor  # uint8 (N, H, W, 3) RGB
    flow: Tensor  # float32 (N, H, W, 2): (dx, dy) in pixels, from current to key


@dataclass(frozen=True)
class BatchShare:
    """The share of every batch that one process trains on."""

    rank: int = 0  # this process's number
    processes: int = 1  # number of processes that share the batch
    parts: int = 1  # parts of the share that are computed one after the other, to save memory

    def part_size(self, batch: int) -> int:
        """Return the number of samples in one part.

        Args:
            batch: The number of samples in a batch, over all processes.

        Raises:
            ValueError: If the batch can't be divided equally.
        """
        divisor = self.processes * self.parts
        if batch % divisor:
            processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
            parts = "" if self.parts == 1 else f" in {self.parts} parts each"
            raise ValueError(
                f"{batch} samples can't be shared equally by {processes}{parts}; use a multiple of {divisor}"
            )
        return batch // divisor


class BatchSource(Protocol[Batch_co]):
    """A source of batches for training."""

    def batches(self, first: int, steps: int, share: BatchShare) -> Iterator[Batch_co]:
        """Yield this process's part of each batch.

        Args:
            first: The number of the first step.
            steps: The number of the step to stop before.
            share: This process's share. If it has several parts, each part is yielded as a batch.
        """
        ...


class _BatchedDataset(Dataset[tuple[int, Sample]], Generic[Sample, Batch_co]):
    """A data set of samples that are drawn by number and loaded in batches."""

    def __init__(self, batch: int, seed: int, workers: int) -> None:
        self._batch = batch
        self._seed = seed
        self._workers = workers

    def random(self, number: int) -> np.random.Generator:
        """Return the random generator of the sample with this number."""
        return np.random.default_rng((self._seed, number))

    def batches(self, first: int, steps: int, share: BatchShare) -> Iterator[Batch_co]:
        """Yield this process's part of each batch.

        Args:
            first: The number of the first step.
            steps: The number of the step to stop before.
            share: This process's share. If it has several parts, each part is yielded as a batch.

        Raises:
            ValueError: If a batch can't be divided into equal shares and parts.
        """
        size = share.part_size(self._batch)
        starts = [
            step * self._batch + (share.rank * share.parts + part) * size
            for step in range(first, steps)
            for part in range(share.parts)
        ]
        numbers = [list(range(start, start + size)) for start in starts]
        loader: DataLoader[Any] = DataLoader(
            self,
            batch_sampler=numbers,
            num_workers=self._workers,
            collate_fn=self.collate,
            worker_init_fn=_start_worker,
        )
        return _with_plain_errors(loader)

    def collate(self, samples: Sequence[tuple[int, Sample]]) -> Batch_co:
        """Combine samples into a batch."""
        raise NotImplementedError


class PairDataset(_BatchedDataset[FramePair, PairBatch]):
    """Augmented pairs, drawn from a data set."""

    def __init__(
        self,
        source: PairSource,
        augmentation: Augmentation,
        batch: int,
        seed: int,
        max_gap: int = MAX_GAP,
        workers: int = 0,
    ) -> None:
        """Choose how pairs are drawn.

        Args:
            source: The data set.
            augmentation: The distribution of crops.
            batch: The number of samples in a batch, over all processes.
            seed: The random seed. The same seed and number always give the same sample.
            max_gap: The maximum number of frames between key and current frame; 0 trains on single frames.
            workers: The number of processes that draw samples, or 0 to draw them in this process.
        """
        super().__init__(batch, seed, workers)
        self._source = source
        self._augmentation = augmentation
        self._max_gap = max_gap

    def __getitem__(self, number: int) -> tuple[int, FramePair]:
        """Draw the sample with this number."""
        random = self.random(number)
        return number, self._augmentation.pair(self._source.pair(random, self._max_gap), random)

    def collate(self, samples: Sequence[tuple[int, FramePair]]) -> PairBatch:
        """Stack pairs into a batch."""
        numbers, pairs = zip(*samples, strict=True)
        labels = [pair.truth.labels for pair in pairs if pair.truth.labels is not None]
        return PairBatch(
            numbers=numbers,
            current=_stack([pair.current for pair in pairs]),
            key=_stack([pair.key for pair in pairs]),
            propagated=torch.tensor([pair.gap > 0 for pair in pairs]),
            labels=_stack(labels) if len(labels) == len(pairs) else None,
            boxes=tuple(pair.truth.boxes for pair in pairs if pair.truth.boxes is not None),
        )


class FlowDataset(_BatchedDataset[FlowPair, FlowBatch]):
    """Pairs with known motion, drawn from a data set."""

    def __init__(
        self, source: FlowSource, augmentation: Augmentation | None, batch: int, seed: int, workers: int = 0
    ) -> None:
        """Choose how pairs are drawn.

        Args:
            source: The data set.
            augmentation: The distribution of crops, or None to take the pairs as they are.
            batch: The number of samples in a batch, over all processes.
            seed: The random seed. The same seed and number always give the same sample.
            workers: The number of processes that draw samples, or 0 to draw them in this process.
        """
        super().__init__(batch, seed, workers)
        self._source = source
        self._augmentation = augmentation

    def __getitem__(self, number: int) -> tuple[int, FlowPair]:
        """Draw the sample with this number."""
        random = self.random(number)
        pair = self._source.flow_pair(random)
        return number, self._augmentation.flow_pair(pair, random) if self._augmentation else pair

    def collate(self, samples: Sequence[tuple[int, FlowPair]]) -> FlowBatch:
        """Stack pairs into a batch."""
        numbers, pairs = zip(*samples, strict=True)
        return FlowBatch(numbers, *(_stack([getattr(p, name) for p in pairs]) for name in ("current", "key", "flow")))


def _start_worker(_: int) -> None:
    """Keep OpenCV in a worker from waiting for the threads of its parent, which don't exist in a forked process."""
    cv2.setNumThreads(0)


def _with_plain_errors(loader: DataLoader[Any]) -> Iterator[Any]:
    """Reduce a `DataError` from a worker process to its message, without that process's traceback."""
    try:
        yield from loader
    except DataError as error:
        *_, message = str(error).strip().splitlines()
        raise DataError(re.sub(r"^[\w.]+Error: ", "", message)) from error


def _stack(arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
