import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keywarp.datasets import (
    Augmentation,
    ClipFlowSource,
    DataError,
    FlowBatch,
    FlowDataset,
    FramePair,
    PairBatch,
    PairDataset,
    SyntheticMotion,
    Truth,
)
from keywarp.datasets.batches import BatchShare
from keywarp.datasets.samples import MAX_GAP
from keywarp.engines import BackendName, Engine, FixedInterval, StreamSession
from tests.datasets.synthetic import Squares, moving_square
from tests.tiny_bundle import tiny_bundle

ALONE = BatchShare()
CROP = Augmentation(32, 48)


def pairs(batch: int = 4, seed: int = 7, workers: int = 0, max_gap: int = MAX_GAP) -> PairDataset:
    return PairDataset(Squares(), CROP, batch, seed, max_gap, workers)


def flows(workers: int = 0) -> FlowDataset:
    return FlowDataset(ClipFlowSource([moving_square()], CROP, 0.5, SyntheticMotion()), None, 4, 7, workers)


def samples(batches: Any) -> dict[int, tuple[Any, ...]]:
    """Return the samples of all batches, keyed by number."""
    found: dict[int, tuple[Any, ...]] = {}
    for batch in batches:
        for place, number in enumerate(batch.numbers):
            parts = (batch.current, batch.key, batch.propagated, batch.labels)
            tensors = [part[place].numpy() for part in parts]
            found[number] = (*tensors, batch.boxes[place].corners, batch.boxes[place].classes)
    return found


def same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 12])
def test_a_sample_is_the_same_whatever_the_batch(batch: int) -> None:
    expected = samples(pairs(24).batches(0, 1, ALONE))
    found = samples(pairs(batch).batches(0, 24 // batch, ALONE))
    assert list(found) == list(range(24))
    assert all(same(found[number], expected[number]) for number in expected)


def test_processes_together_draw_the_samples_that_one_process_draws() -> None:
    expected = samples(pairs().batches(0, 3, ALONE))
    shares = [samples(pairs().batches(0, 3, BatchShare(rank, 2))) for rank in (0, 1)]
    assert [list(share) for share in shares] == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]
    assert all(same(sample, expected[number]) for share in shares for number, sample in share.items())


def test_a_resumed_training_continues_with_the_next_samples() -> None:
    expected = samples(pairs().batches(0, 4, ALONE))
    found = samples(pairs().batches(2, 4, ALONE))
    assert list(found) == list(range(8, 16))
    assert all(same(sample, expected[number]) for number, sample in found.items())
    assert not samples(pairs().batches(4, 4, ALONE))


def test_seeds_and_numbers_draw_different_samples() -> None:
    first, second = (samples(pairs(seed=seed).batches(0, 4, ALONE)) for seed in (0, 1))
    drawn = [*first.values(), *second.values()]
    assert not any(same(a, b) for n, a in enumerate(drawn) for b in drawn[:n])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # has threads, as PyTorch's workers don't mind
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than cores
@pytest.mark.parametrize("draws", [pairs, flows])
def test_worker_processes_draw_the_same_batches(draws: Any) -> None:
    expected, found = (list(draws(workers=workers).batches(1, 4, BatchShare(1, 2))) for workers in (0, 2))
    assert len(found) == 3
    for one, other in zip(expected, found, strict=True):
        for a, b in zip(fields(one), fields(other), strict=True):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


# OpenCV's, OpenMP's and the runtime's threads don't exist in a process that is forked after they have worked.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_worker_processes_draw_the_same_batches_after_an_engine_has_run(tmp_path: Path, backend: BackendName) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", short_side=272, long_side=640)
    session = StreamSession(Engine(bundle, backend, threads=2, motion="dis-chained-repaired"), FixedInterval(3))
    for frame in np.random.default_rng(0).integers(0, 256, (6, 272, 640, 3), np.uint8):
        session.process(frame)
    kinds: tuple[Any, ...] = (pairs, flows)
    for draws in kinds:
        expected, found = (list(draws(workers=workers).batches(0, 4, ALONE)) for workers in (0, 2))
        for one, other in zip(expected, found, strict=True):
            assert all(map(torch.equal, map(torch.as_tensor, fields(one)), map(torch.as_tensor, fields(other))))


def fields(batch: PairBatch | FlowBatch) -> list[Any]:
    """Return all arrays and tensors of a batch."""
    boxes = batch.boxes if isinstance(batch, PairBatch) else ()
    parts = [getattr(batch, field.name) for field in dataclasses.fields(batch) if field.name != "boxes"]
    return [*parts, *(array for box in boxes for array in (box.corners, box.classes))]


def test_without_a_gap_batches_are_of_single_frames() -> None:
    [batch] = pairs(batch=16, max_gap=0).batches(0, 1, ALONE)
    assert not batch.propagated.any()
    assert torch.equal(batch.current, batch.key)
    [moving] = pairs(batch=16).batches(0, 1, ALONE)
    differ = (moving.current != moving.key).flatten(1).any(1)
    assert moving.propagated.any()
    assert torch.equal(differ, moving.propagated)  # the square moves in every frame


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^4 samples can't be shared equally by 3 processes; use a multiple of 3$"):
        pairs().batches(0, 1, BatchShare(0, 3))


class Unlabelled(Squares):
    """Squares with boxes on every frame, but labels on only some of them."""

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        pair = super().pair(random, max_gap)
        labels = pair.truth.labels if random.random() < 0.5 else None
        return FramePair(pair.current, pair.key, pair.gap, Truth(labels, pair.truth.boxes))


def test_parts_divide_a_share_in_order() -> None:
    expected = samples(pairs().batches(1, 3, BatchShare(1, 2)))
    found = samples(pairs().batches(1, 3, BatchShare(1, 2, parts=2)))
    assert list(found) == list(expected)
    assert all(same(sample, expected[number]) for number, sample in found.items())
    assert len(list(pairs().batches(1, 3, BatchShare(1, 2, parts=2)))) == 4
    with pytest.raises(ValueError, match=r"^4 samples can't be shared equally by 1 process in 3 parts each; use"):
        pairs().batches(0, 1, BatchShare(parts=3))


def test_a_batch_has_labels_only_if_all_its_samples_have_them() -> None:
    [batch] = PairDataset(Unlabelled(), CROP, 16, seed=0).batches(0, 1, ALONE)
    assert batch.labels is None
    assert len(batch.boxes) == 16


class Broken(Squares):
    """Squares whose frames can't be read."""

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:  # noqa: ARG002
        raise DataError("a.png is cut short; get it again")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_broken_data_is_reported_in_one_sentence_from_any_process(workers: int) -> None:
    with pytest.raises(DataError) as caught:
        list(PairDataset(Broken(), CROP, 2, seed=0, workers=workers).batches(0, 1, ALONE))
    assert str(caught.value) == "a.png is cut short; get it again"
