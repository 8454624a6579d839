import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import ps_roi_pool

from keywarp.engines.detection import pooling
from keywarp.engines.detection.pooling import Pooling

Array = NDArray[np.float32]
SIZES = [(38, 63, 7, 31), (9, 13, 3, 5), (5, 6, 7, 4), (1, 1, 7, 2), (1, 12, 2, 1), (4, 4, 1, 3)]  # H, W, k, C
STRIDE = 16


def maps_and_regions(height: int, width: int, bins: int, channels: int) -> tuple[Array, Array]:
    random = np.random.default_rng(height * width)
    maps = random.normal(size=(height, width, bins**2, channels)).astype(np.float32)
    limits = np.array([width, height]) * STRIDE
    corners = np.sort(random.uniform(0, 1, (40, 2, 2)), axis=1) * limits
    corners[0] = np.array([[0, 0], limits])
    corners[1] = np.array([limits - 1, limits])
    corners[2] = limits
    corners[3:20] = np.round(corners[3:20] / 8) * 8  # halves of cells, whose rounding matters
    return maps, corners.reshape(-1, 4).astype(np.float32)


@pytest.mark.parametrize(("height", "width", "bins", "channels"), SIZES)
def test_pooling_equals_written_out_loops(height: int, width: int, bins: int, channels: int) -> None:
    maps, regions = maps_and_regions(height, width, bins, channels)
    votes = Pooling(bins, np.float32(1 / STRIDE)).vote(maps, regions)
    for region, found in zip(regions, votes, strict=True):
        x1, y1, x2, y2 = (math.floor(v / STRIDE + 0.5) for v in region)
        w, h = max(x2 - x1, 1), max(y2 - y1, 1)
        expected = np.zeros(channels)
        for row in range(bins):
            for column in range(bins):
                cells = [
                    maps[y, x, row * bins + column]
                    for y in range(y1 + row * h // bins, y1 - (-(row + 1) * h // bins))
                    for x in range(x1 + column * w // bins, x1 - (-(column + 1) * w // bins))
                    if y < height and x < width
                ]
                if cells:
                    expected += np.mean(cells, axis=0, dtype=np.float64) / bins**2
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "bins", "channels"), SIZES)
def test_pooling_equals_torchvisions_bit_for_bit(height: int, width: int, bins: int, channels: int) -> None:
    """Torchvision never reads the last row and column, so its maps have one more of each."""
    maps, regions = maps_and_regions(height, width, bins, channels)
    channels_first = torch.from_numpy(maps).permute(3, 2, 0, 1).reshape(1, -1, height, width)
    padded = torch.nn.functional.pad(channels_first, (0, 1, 0, 1))
    pooled = ps_roi_pool(padded, [torch.from_numpy(regions)], bins, 1 / STRIDE)
    expected = pooled.double().mean((2, 3)).float().numpy()
    np.testing.assert_array_equal(Pooling(bins, np.float32(1 / STRIDE)).vote(maps, regions), expected)


def test_without_regions_there_are_no_votes() -> None:
    votes = Pooling(2, np.float32(1)).vote(np.ones((3, 4, 4, 5), np.float32), np.zeros((0, 4), np.float32))
    assert votes.shape == (0, 5)


def test_one_core_gives_the_same_as_two(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, regions = maps_and_regions(38, 63, 7, 31)

    def vote(cores: int) -> Array:
        monkeypatch.setattr(pooling, "available_cores", lambda: cores)
        return Pooling(7, np.float32(1 / STRIDE)).vote(maps, regions)

    np.testing.assert_array_equal(vote(cores=1), vote(cores=2))
