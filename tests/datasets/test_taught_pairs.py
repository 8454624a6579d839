import cv2
import numpy as np
import pytest

from keywarp.datasets import Clip, DataError
from keywarp.datasets.taught_pairs import MixedPairs, TaughtClip, TaughtPairs, best_flow, teach

STEP = 3  # pixels that the object moves to the right in each frame
SIDE = 28


def walking_square() -> Clip:
    """Return a clip of a textured square that moves over a textured ground; frame 6 is another shot."""
    random = np.random.default_rng(0)
    ground, square = (cv2.GaussianBlur(random.integers(0, 256, (72, 112, 3), np.uint8), (0, 0), 1.5) for _ in range(2))
    frames = np.stack([ground] * 8)
    for index, frame in enumerate(frames):
        frame[20 : 20 + SIDE, 16 + STEP * index : 16 + STEP * index + SIDE] = 255 - square[:SIDE, :SIDE] // 2
    return Clip("square", frames, (range(6), range(6, 8)))


@pytest.fixture(scope="module")
def taught() -> TaughtClip:
    return teach(walking_square(), still=True)


def test_the_motion_is_known_on_the_object_and_zero_around_it(taught: TaughtClip) -> None:
    flow = best_flow(taught, 5, 0)
    left = 16 + STEP * 5
    inside = flow[26 : 14 + SIDE, left + 6 : left + SIDE - 6]
    assert np.isnan(inside).mean() < 0.3
    assert abs(np.nanmedian(inside[..., 0]) + 5 * STEP) < 1
    assert (flow[:, 90:] == 0).all()


def test_nothing_is_known_where_no_motion_explains_the_frames(taught: TaughtClip) -> None:
    uncovered = best_flow(taught, 5, 0)[24 : 16 + SIDE, 18:26]  # ground that the square hides in the key frame
    assert np.isnan(uncovered).mean() > 0.7


def test_a_pair_stays_within_a_shot_and_has_the_size(taught: TaughtClip) -> None:
    source = TaughtPairs([taught], 48, 64)
    for number in range(10):
        pair = source.flow_pair(np.random.default_rng(number))
        assert pair.current.shape == pair.key.shape == (48, 64, 3)
        assert pair.flow.shape == (48, 64, 2)
    again = source.flow_pair(np.random.default_rng(9))
    np.testing.assert_array_equal(again.flow, pair.flow)


def test_a_mirrored_pair_moves_the_other_way(taught: TaughtClip) -> None:
    source = TaughtPairs([taught], 72, 112)
    ways = {np.sign(np.nansum(source.flow_pair(np.random.default_rng(number)).flow[..., 0])) for number in range(24)}
    assert {-1.0, 1.0} <= ways


def test_clips_smaller_than_the_pairs_are_refused(taught: TaughtClip) -> None:
    with pytest.raises(DataError, match="square"):
        TaughtPairs([taught], 80, 64)


def test_the_share_decides_between_the_sources(taught: TaughtClip) -> None:
    first, second = TaughtPairs([taught], 48, 64), TaughtPairs([taught], 40, 64)
    heights = [
        MixedPairs(first, second, share).flow_pair(np.random.default_rng(number)).flow.shape[0]
        for share in (0.0, 1.0)
        for number in range(3)
    ]
    assert heights == [48, 48, 48, 40, 40, 40]
