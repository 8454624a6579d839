"""Tests that every `OpticalFlow` must pass, for a test class to inherit."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.datasets.middlebury import MiddleburyPair
from keywarp.engines import InvalidFrameError, OpticalFlow


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """An image (height, width, 3) of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class OpticalFlowTests:
    """The tests; a subclass overrides the fixture `source`."""

    @pytest.fixture
    def source(self) -> OpticalFlow:
        raise NotImplementedError

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (16, 16), (12, 300), (16, 300), (33, 21)])
    def test_every_size_has_a_flow(self, source: OpticalFlow, size: tuple[int, int]) -> None:
        flow = source.estimate(noise(*size), noise(*size, seed=1))
        assert flow.shape == (*size, 2)
        assert flow.dtype == np.float32
        assert np.isfinite(flow).all()

    def test_the_flow_points_from_the_current_frame_to_the_key_frame(
        self, source: OpticalFlow, pair: MiddleburyPair
    ) -> None:
        key = pair.crop(0, 3, 100, 160).current
        current = pair.crop(0, 0, 100, 160).current  # its pixels are 3 to the right of the key frame's
        dx, dy = np.median(source.estimate(current, key)[20:-20, 20:-20], axis=(0, 1))
        assert dx == pytest.approx(-3, abs=0.1)
        assert dy == pytest.approx(0, abs=0.1)

    def test_images_of_two_sizes_are_refused(self, source: OpticalFlow) -> None:
        with pytest.raises(InvalidFrameError, match=r"same size, got \(24, 24\) and \(24, 25\)"):
            source.estimate(noise(24, 24), noise(24, 25))

    def test_arrays_that_are_not_images_are_refused(self, source: OpticalFlow) -> None:
        good = noise(24, 24)
        bad: list[NDArray[Any]] = [good.astype(np.float32), good[..., 0], good[..., :2], good[:0]]
        for image in bad:
            with pytest.raises(InvalidFrameError, match="uint8"):
                source.estimate(image, image)
