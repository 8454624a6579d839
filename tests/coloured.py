"""A picture for `tiny_bundle` whose features optical flow can move."""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines import StreamSession


def coloured(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Red, green and dark areas of many pixels, with texture that optical flow can hold on to."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, (-(-height // 32), -(-width // 32))).repeat(32, 0).repeat(32, 1)[:height, :width]
    image = random.integers(0, 60, (height, width, 3), np.uint8)
    for channel, class_id in ((0, 1), (1, 2)):
        image[..., channel] += (classes == class_id).astype(np.uint8) * 180
    return image


def assert_follows_a_moving_picture(session: StreamSession) -> None:
    """The labels of a key frame move along with the picture, 16 pixels (one cell) to the right."""
    scene = coloured(160, 320)
    key, current = scene[16:144, 64:256], scene[16:144, 48:240]
    before = session.process(np.ascontiguousarray(key)).labels
    moved = session.process(np.ascontiguousarray(current)).labels
    inside = (slice(16, 112), slice(48, 160))
    truth = before[:, :-16]  # what should have arrived 16 pixels further right
    right = float((moved[:, 16:][inside] == truth[inside]).mean())
    copied = float((before[:, 16:][inside] == truth[inside]).mean())
    assert right > 0.97
    assert copied < 0.8
