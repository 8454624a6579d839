import numpy as np
import pytest

from keywarp.datasets import DataError, Image, warp_image
from keywarp.datasets.flying_crowds import FlyingCrowds


def photographs() -> list[Image]:
    random = np.random.default_rng(0)
    coarse = [random.integers(0, 256, (9, 12, 3), np.uint8) for _ in range(3)]
    return [np.repeat(np.repeat(image, 24, axis=0), 24, axis=1) for image in coarse]


def test_a_pair_depends_on_its_generator_only() -> None:
    first, second = (FlyingCrowds(photographs(), 64, 96).flow_pair(np.random.default_rng(3)) for _ in range(2))
    for name in ("current", "key", "flow"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.current.shape == first.key.shape == (64, 96, 3)
    assert first.flow.shape == (64, 96, 2)
    assert first.flow.dtype == np.float32


def test_the_flow_explains_most_of_the_image() -> None:
    source = FlyingCrowds(photographs(), 96, 128)
    explained, unmoved = [], []
    for number in range(24):
        pair = source.flow_pair(np.random.default_rng(number))
        current = pair.current.astype(np.float32)
        explained.append(np.median(np.abs(warp_image(pair.key.astype(np.float32), pair.flow) - current)))
        unmoved.append(np.median(np.abs(pair.key.astype(np.float32) - current)))
    assert np.mean(explained) < 0.7 * np.mean(unmoved)
    assert np.median(explained) < 14


def test_many_objects_move_further_than_the_background() -> None:
    source = FlyingCrowds(photographs(), 96, 128)
    far = 0
    for number in range(24):
        flow = source.flow_pair(np.random.default_rng(number)).flow
        own = np.linalg.norm(flow - np.median(flow, axis=(0, 1)), axis=-1)
        far += int((own > 8).sum() > 10)
    assert far > 8


def test_an_empty_list_of_photographs_is_refused() -> None:
    with pytest.raises(DataError, match="photographs"):
        FlyingCrowds([], 64, 64)


def test_uncovered_ground_comes_from_ground_and_not_from_what_covered_it() -> None:
    ground = [np.full((240, 320, 3), 200, np.uint8)]
    thing = np.zeros((30, 16, 4), np.uint8)
    thing[4:26, 3:13] = (10, 10, 10, 255)
    source = FlyingCrowds(ground, 96, 128, [thing])
    moving, ghosts = 0, 0
    for number in range(60):
        pair = source.flow_pair(np.random.default_rng(number))
        current, key = (image.max(axis=-1).astype(np.float32) for image in (pair.current, pair.key))
        explained = warp_image(key[..., None], pair.flow)[..., 0]
        uncovered = (current > 90) & (key < 40)
        moving += int(uncovered.sum())
        ghosts += int((uncovered & (explained < 40)).sum())
    assert moving > 500
    assert ghosts < 0.4 * moving
