import cv2
import numpy as np

from keywarp.datasets import Clip
from keywarp.datasets.cutouts import cut_out
from keywarp.datasets.flying_crowds import FlyingCrowds


def walking() -> Clip:
    """Return a clip of a dark figure of 10 x 24 pixels that walks over a textured ground."""
    random = np.random.default_rng(0)
    ground = cv2.GaussianBlur(random.integers(120, 256, (80, 160, 3), np.uint8), (0, 0), 1.5)
    frames = np.stack([ground] * 40)
    for index, frame in enumerate(frames):
        frame[30:54, 6 + 3 * index : 16 + 3 * index] = 20
    return Clip("walking", frames.astype(np.uint8), (range(40),))


def test_what_moves_is_cut_out() -> None:
    found = cut_out(walking())
    assert len(found) > 30
    for thing in found:
        covered = thing[..., 3] > 127
        assert 200 <= covered.sum() <= 380
        assert np.median(thing[covered][:, :3]) < 40


def test_crowds_show_cut_outs() -> None:
    things = cut_out(walking())
    plain = [np.full((120, 160, 3), 220, np.uint8)]
    without, with_them = (
        sum((pair.flow_pair(np.random.default_rng(number)).current.max(axis=-1) < 60).mean() for number in range(12))
        for pair in (FlyingCrowds(plain, 64, 96), FlyingCrowds(plain, 64, 96, things))
    )
    assert with_them > without + 0.05
