import numpy as np

from keywarp.datasets import SyntheticMotion, dense_flow, synthetic_pair, warp_image
from tests.datasets.synthetic import textured


def test_dense_flow_points_from_current_to_key() -> None:
    key = textured(96, 128)
    current = np.roll(key, 4, axis=1)  # moved 4 pixels to the right: it comes from 4 pixels to the left
    flow = dense_flow(current, key)[16:-16, 16:-16]
    np.testing.assert_allclose(flow.mean((0, 1)), (-4, 0), atol=0.3)


def test_warping_by_whole_pixels_is_exact_and_zero_outside() -> None:
    image = np.random.default_rng(0).random((6, 8, 1), np.float32)
    flow = np.zeros((6, 8, 2), np.float32)
    flow[..., 0] = 3
    moved = warp_image(image, flow)
    np.testing.assert_allclose(moved[:, :5], image[:, 3:], atol=1e-6)
    assert not moved[:, 5:].any()


def test_a_synthetic_key_image_warped_along_the_flow_is_the_current_image() -> None:
    random = np.random.default_rng(3)
    motion = SyntheticMotion(shift=6, still=0)
    for seed in range(5):
        current, key, flow = synthetic_pair(textured(64, 96, seed), [textured(64, 96, 10 + seed)], motion, random)
        error = np.abs(warp_image(key.astype(np.float32), flow) - current).mean(axis=2)
        inside = np.ones(error.shape, bool)
        inside[:12], inside[-12:], inside[:, :12], inside[:, -12:] = False, False, False, False
        assert np.median(error[inside]) < 4
        assert np.median(np.abs(key.astype(np.float32) - current).mean(axis=2)) > 8


def test_equal_seeds_draw_equal_synthetic_pairs() -> None:
    first, second = (
        synthetic_pair(textured(48, 64), [textured(48, 64, 1)], SyntheticMotion(), np.random.default_rng(5))
        for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
