import numpy as np
import pytest

from keywarp.datasets import DataError, Image, SyntheticMotion, warp_image
from keywarp.datasets.flying_pieces import LIGHT, NOISE, FlyingPieces
from tests.datasets.synthetic import textured


def photographs() -> list[Image]:
    return [textured(90, 160, seed) for seed in range(3)] + [textured(50, 70, 9)]


def test_equal_seeds_draw_equal_pairs() -> None:
    source = FlyingPieces(photographs(), 48, 64, SyntheticMotion(shift=8))
    first, second = (source.flow_pair(np.random.default_rng(3)) for _ in "ab")
    np.testing.assert_array_equal(first.current, second.current)
    np.testing.assert_array_equal(first.flow, second.flow)
    assert first.current.shape == first.key.shape == (48, 64, 3)
    assert first.flow.shape == (48, 64, 2)


def test_the_key_sampled_along_the_flow_is_the_current_image() -> None:
    source = FlyingPieces(photographs(), 96, 128, SyntheticMotion(shift=6))
    for seed in range(4):
        pair = source.flow_pair(np.random.default_rng(seed))
        moved = warp_image(pair.key.astype(np.float32), pair.flow) + 1
        light = np.median((pair.current + 1) / moved, axis=(0, 1))
        difference = np.abs(light * moved - pair.current - 1).mean(axis=2)
        assert np.median(difference) < NOISE + 2  # everywhere except where a surface is hidden in one image


def test_each_image_has_its_own_light_and_noise() -> None:
    source = FlyingPieces(photographs(), 96, 128, SyntheticMotion(shift=1e-6, turn=0, zoom=0, layers=0))
    light, noise = [], []
    for seed in range(20):
        pair = source.flow_pair(np.random.default_rng(seed))
        ratio = (pair.current + 1.0) / (pair.key + 1.0)
        light.append(np.log(np.median(ratio)))
        noise.append(np.std(ratio[pair.key > 100]))
    assert LIGHT / 2 < np.std(light) < 2 * LIGHT
    assert min(noise) < 0.03 < max(noise)


def test_a_larger_shift_gives_a_larger_motion() -> None:
    near, far = (
        np.mean([np.abs(source.flow_pair(np.random.default_rng(seed)).flow).mean() for seed in range(20)])
        for source in (FlyingPieces(photographs(), 48, 64, SyntheticMotion(shift=shift)) for shift in (2, 12))
    )
    assert far > 2 * near


def test_an_empty_list_of_photographs_is_refused() -> None:
    with pytest.raises(DataError, match="give at least one"):
        FlyingPieces([], 48, 64, SyntheticMotion())
