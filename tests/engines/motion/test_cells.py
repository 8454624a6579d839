import numpy as np
import pytest

from keywarp.engines.motion import to_cells


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
