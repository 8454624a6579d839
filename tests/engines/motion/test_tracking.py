import numpy as np
from numpy.typing import NDArray

from keywarp.engines.motion import DIS, ChainedTracker, DirectTracker
from keywarp.engines.motion.tracking import compose

HEIGHT, WIDTH = 96, 160
STEP = 5  # pixels a frame


def scene() -> NDArray[np.uint8]:
    """A wide textured picture, through which the tests move a window."""
    random = np.random.default_rng(3)
    return random.integers(0, 256, (HEIGHT // 4, 120, 3), np.uint8).repeat(4, 0).repeat(4, 1)


def window(x: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(scene()[:, x : x + WIDTH])


def test_two_steps_compose_to_their_sum_where_the_flow_is_uniform() -> None:
    step, before = np.full((4, 6, 2), (1.0, 0.5), np.float32), np.full((4, 6, 2), (2.0, -1.0), np.float32)
    np.testing.assert_allclose(compose(step, before), np.full((4, 6, 2), (3.0, -0.5)))


def test_the_flow_before_is_taken_where_the_step_leads() -> None:
    step, before = np.zeros((1, 5, 2), np.float32), np.zeros((1, 5, 2), np.float32)
    step[..., 0] = 1.5
    before[0, :, 0] = (0, 10, 20, 30, 40)
    np.testing.assert_allclose(compose(step, before)[0, :, 0], (16.5, 26.5, 36.5, 41.5, 41.5))


def test_a_chain_follows_motion_that_is_too_far_to_be_estimated_directly() -> None:
    frames = [window(240 - STEP * number) for number in range(13)]
    chained, direct = ChainedTracker(DIS(), frames[0]), DirectTracker(DIS(), frames[0])
    for frame in frames[1:]:
        composed, estimated = chained.advance(frame), direct.advance(frame)
    visible = (slice(8, -8), slice(68, -8))
    truth = np.array([-STEP * 12, 0], np.float32)
    assert np.abs(composed[visible] - truth).mean() < 1
    assert np.abs(estimated[visible] - truth).mean() > 5
    assert (chained.source, direct.source) == ("dis-chained", "dis")
