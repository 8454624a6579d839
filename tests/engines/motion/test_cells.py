import numpy as np
import pytest

from keywarp.engines.motion import stay_inside, to_cells, to_pixels


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (1, 40), (7, 7)])
def test_constant_flow_keeps_its_value_in_cells(size: tuple[int, int]) -> None:
    flow = np.full((*size, 2), (4.0, -12.0), np.float32)
    cells = to_cells(flow, 8)
    assert cells.shape == (1, 2, -(-size[0] // 8), -(-size[1] // 8))
    assert cells.dtype == np.float32
    assert cells.flags.c_contiguous
    np.testing.assert_allclose(cells[0, 0], 0.5)
    np.testing.assert_allclose(cells[0, 1], -1.5)


def test_a_cell_is_the_mean_of_its_pixels() -> None:
    flow = np.random.default_rng(0).normal(size=(8, 12, 2)).astype(np.float32)
    cells = to_cells(flow, 4)
    np.testing.assert_allclose(cells[0, :, 1, 2], flow[4:8, 8:12].mean(axis=(0, 1)) / 4, rtol=1e-5)


def test_a_cell_beyond_the_border_repeats_the_last_pixels() -> None:
    flow = np.zeros((1, 3, 2), np.float32)
    flow[0, 2] = (4.0, 8.0)
    np.testing.assert_allclose(to_cells(flow, 2)[0, :, 0, 1], (2.0, 4.0))


def test_flow_that_leaves_the_map_ends_at_its_border() -> None:
    flow = np.zeros((1, 2, 3, 4), np.float32)
    flow[0, 0], flow[0, 1] = -1.5, 9
    inside = stay_inside(flow)
    np.testing.assert_array_equal(inside[0, 0], np.tile([0, -1, -1.5, -1.5], (3, 1)))
    np.testing.assert_array_equal(inside[0, 1], np.tile([[2], [1], [0]], (1, 4)))
    assert flow.min() == -1.5  # the given flow isn't changed


def test_a_flow_of_cells_becomes_one_of_pixels_and_back() -> None:
    flow = np.full((1, 2, 3, 5), (0.5), np.float32)
    flow[0, 1] = -2
    pixels = to_pixels(flow, 8, 20, 37)  # the last cells are cut off
    assert pixels.shape == (20, 37, 2)
    np.testing.assert_allclose(pixels[..., 0], 4)
    np.testing.assert_allclose(pixels[..., 1], -16)
    np.testing.assert_allclose(to_cells(pixels, 8), flow)
