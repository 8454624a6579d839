from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from keywarp.datasets import Augmentation, Clip, ClipFlowSource, LabelledClip, SyntheticMotion, warp_image
from tests.datasets.synthetic import textured


def numbered(frames: int, *cuts: int) -> LabelledClip:
    """Return a clip whose pixels hold their frame's number."""
    pictures = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None, None], (frames, 16, 16, 3)).copy()
    bounds = [0, *cuts, frames]
    shots = tuple(range(a, b) for a, b in pairwise(bounds))
    return LabelledClip(Clip("numbered", pictures, shots), pictures[..., 0] % 2)


def test_the_gap_is_uniform_in_0_to_9() -> None:
    source, random = numbered(250), np.random.default_rng(0)
    pairs = [source.pair(random) for _ in range(5000)]
    inside = [pair.gap for pair in pairs if pair.current[0, 0, 0] >= 9]
    counts = Counter(inside)
    assert set(counts) == set(range(10))
    for count in counts.values():  # 4800 / 10; the standard deviation is 21
        assert count == pytest.approx(len(inside) / 10, abs=90)


def test_pairs_stay_within_a_shot_and_are_as_far_apart_as_they_say() -> None:
    source, random = numbered(40, 3, 12), np.random.default_rng(0)
    seen = set()
    for _ in range(600):
        pair = source.pair(random)
        current, key = int(pair.current[0, 0, 0]), int(pair.key[0, 0, 0])
        assert current - key == pair.gap
        assert source.clip.shot_of(current) == source.clip.shot_of(key)
        assert pair.truth.labels is not None
        assert (pair.truth.labels == current % 2).all()
        seen.add((current, key))
    assert {(0, 0), (2, 0), (11, 3), (39, 30)} <= seen


def test_without_a_gap_a_pair_is_one_frame() -> None:
    source, random = numbered(40), np.random.default_rng(0)
    for _ in range(50):
        pair = source.pair(random, max_gap=0)
        assert pair.gap == 0
        assert np.array_equal(pair.current, pair.key)


def test_a_snippet_ends_with_its_labelled_frame_and_begins_within_the_shot() -> None:
    source = numbered(9, 4)
    found = [([int(frame[0, 0, 0]) for frame in s.frames], s.truth.labels) for s in source.snippets(3)]
    assert [frames for frames, _ in found] == [
        [0], [0, 1], [0, 1, 2], [1, 2, 3], [4], [4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 8],
    ]  # fmt: skip
    assert all(labels is not None and (labels == frames[-1] % 2).all() for frames, labels in found)
    assert len(source) == len(found)


@pytest.mark.parametrize("synthetic_share", [0.0, 1.0])
def test_the_flow_of_clips_points_from_the_current_image_to_the_key(synthetic_share: float) -> None:
    panorama = textured(96, 168)
    frames = np.stack([panorama[:, 2 * n : 2 * n + 144] for n in range(12)])
    clip = LabelledClip(Clip("pan", frames, (range(12),)), frames[..., 0])
    flows = ClipFlowSource([clip], Augmentation(64, 96, (0.7, 1.2)), synthetic_share, SyntheticMotion(shift=4))
    random = np.random.default_rng(3)
    moved, still = [], []
    for _ in range(12):
        pair = flows.flow_pair(random)
        assert pair.flow.shape == (64, 96, 2)
        current, key = pair.current.astype(np.float32), pair.key.astype(np.float32)
        inside = warp_image(np.ones_like(key), pair.flow) > 0.99
        moved.append(np.abs(warp_image(key, pair.flow) - current)[inside].mean())
        still.append(np.abs(key - current).mean())
    assert np.mean(moved) < 0.6 * np.mean(still)


def test_clips_of_more_weight_are_sampled_more() -> None:
    light, heavy = numbered(40), LabelledClip(numbered(40).clip, numbered(40).labels, weight=3)
    heavy.clip.frames[:] += 100
    flows = ClipFlowSource([light, heavy], Augmentation(16, 16, (1, 1), 0, 0, 0), 0.0, SyntheticMotion())
    random = np.random.default_rng(0)
    bright = [flows.flow_pair(random).current[0, 0, 0] >= 100 for _ in range(200)]
    assert np.mean(bright) == pytest.approx(0.75, abs=0.1)
