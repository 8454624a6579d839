"""A square moves far over a textured ground. The flow knows nothing of it, and the repair has to find out."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines.motion import FlowCheck

CELL = 4  # pixels
ROWS, COLUMNS = 24, 40
SIZE = 6  # cells, the square's side
FROM, TO = (9, 8), (9, 26)  # row and column of the square's first cell
STILL = np.zeros((1, 2, ROWS, COLUMNS), np.float32)


def ground() -> NDArray[np.uint8]:
    """Grass: the same everywhere, and the same nowhere."""
    random = np.random.default_rng(0)
    return random.integers(90, 110, (ROWS * CELL, COLUMNS * CELL, 3), np.uint8)


def with_square(row: int, column: int) -> NDArray[np.uint8]:
    image = ground()
    colours = np.random.default_rng(2).integers(130, 256, (3, 3, 3)).astype(np.float32)
    image[row * CELL : (row + SIZE) * CELL, column * CELL : (column + SIZE) * CELL] = cv2.resize(
        colours, (SIZE * CELL, SIZE * CELL), interpolation=cv2.INTER_CUBIC
    ).clip(0, 255)
    return image


def cells(place: tuple[int, int], margin: int = 0) -> tuple[slice, slice]:
    return tuple(slice(start + margin, start + SIZE - margin) for start in place)  # type: ignore[return-value]


def sources(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Row and column that each cell comes from, (2, h, w)."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    return np.stack([rows + flow[0, 1], columns + flow[0, 0]])


def test_what_moved_too_far_for_the_flow_is_found_again() -> None:
    flow = FlowCheck(with_square(*FROM), CELL).repair(with_square(*TO), STILL).flow
    inside = cells(TO, margin=1)
    np.testing.assert_array_equal(flow[0, 0][inside], FROM[1] - TO[1])
    np.testing.assert_array_equal(flow[0, 1][inside], 0)


def test_the_nearest_of_several_places_that_look_alike_is_taken() -> None:
    key = ground()
    for place in ((9, 2), (9, 12), (17, 26)):  # the last one is 8 cells away from `TO`
        rows, columns = (slice(start * CELL, (start + SIZE) * CELL) for start in place)
        key[rows, columns] = with_square(*place)[rows, columns]
    flow = FlowCheck(key, CELL).repair(with_square(*TO), STILL).flow
    inside = cells(TO, margin=2)
    np.testing.assert_array_equal(flow[0, 0][inside], 0)
    np.testing.assert_array_equal(flow[0, 1][inside], 8)


def test_uncovered_ground_comes_from_other_ground_and_not_from_what_covered_it() -> None:
    flow = FlowCheck(with_square(*FROM), CELL).repair(with_square(*TO), STILL).flow
    rows, columns = sources(flow)[(slice(None), *cells(FROM, margin=1))]
    in_rows = (rows > FROM[0] - 1) & (rows < FROM[0] + SIZE)
    in_columns = (columns > FROM[1] - 1) & (columns < FROM[1] + SIZE)
    assert not (in_rows & in_columns).any()


def test_a_failed_cell_is_trusted_less_and_a_repaired_one_nearly_as_much_as_others() -> None:
    check = FlowCheck(with_square(*FROM), CELL)
    failed = check.check(with_square(*TO), STILL).reliability
    repaired = check.repair(with_square(*TO), STILL).reliability
    for place in (FROM, TO):
        assert failed[cells(place, margin=1)].max() < 0.3
        np.testing.assert_allclose(repaired[cells(place, margin=2)], 0.8)
    assert failed[0].min() == repaired[0].min() == 1
    assert check.check(with_square(*FROM), STILL).reliability.min() == 1


def test_a_flow_that_explains_the_frame_stays_as_it_is() -> None:
    image = with_square(*FROM)
    moved = np.roll(image, 2 * CELL, axis=1)
    flow = STILL.copy()
    flow[0, 0] = -2
    repaired = FlowCheck(image, CELL).repair(moved, flow).flow
    np.testing.assert_array_equal(repaired[:, :, :, 4:], flow[:, :, :, 4:])


def test_a_flow_that_explains_the_frame_worse_than_copying_is_dropped() -> None:
    """The ground is blurred, so that the wrong flow is too small an error to fail in any cell."""
    image = np.asarray(cv2.GaussianBlur(with_square(*FROM), (0, 0), 2), dtype=np.uint8)
    wrong = STILL.copy()
    wrong[0, 0, :, 20:] = 1
    checked = FlowCheck(image, CELL).stay(image, wrong)
    np.testing.assert_array_equal(checked.flow, STILL)
    assert checked.reliability.min() == 1
    assert (wrong[0, 0, :, 20:] == 1).all()


def test_a_flow_that_is_right_in_places_is_kept_there_only() -> None:
    flow = STILL.copy()
    flow[0, 0] = FROM[1] - TO[1]  # right for the square alone, wrong for the ground
    repaired = FlowCheck(with_square(*FROM), CELL).stay(with_square(*TO), flow).flow
    np.testing.assert_array_equal(repaired[0, 0][cells(TO, margin=1)], FROM[1] - TO[1])
    np.testing.assert_array_equal(repaired[0, 0, :, 34:], 0)


def test_a_cell_keeps_its_flow_or_stays() -> None:
    flow = STILL.copy()
    flow[0, 1] = 1
    repaired = FlowCheck(with_square(*FROM), CELL).stay(with_square(*TO), flow)
    np.testing.assert_array_equal(repaired.flow[0, 0], 0)
    assert set(np.unique(repaired.flow[0, 1])) <= {0, 1}
    assert repaired.reliability[cells(TO, margin=1)].max() < 0.4


def test_a_new_object_that_the_key_frame_does_not_show_is_not_trusted() -> None:
    repaired = FlowCheck(ground(), CELL).repair(with_square(*TO), STILL)
    assert repaired.reliability[cells(TO, margin=1)].max() < 0.4


@pytest.mark.parametrize("shape", [(37, 51), (4, 4), (1, 300)])
@pytest.mark.parametrize("cell", [1, 4, 16])
def test_images_of_any_size_can_be_repaired(shape: tuple[int, int], cell: int) -> None:
    random = np.random.default_rng(1)
    key, current = (random.integers(0, 256, (*shape, 3), np.uint8) for _ in range(2))
    rows, columns = (-(-side // cell) for side in shape)
    repaired = FlowCheck(key, cell).repair(current, np.zeros((1, 2, rows, columns), np.float32))
    flow, reliability = repaired.flow, repaired.reliability
    assert (flow.shape, reliability.shape) == ((1, 2, rows, columns), (rows, columns))
    assert 0 < reliability.min() <= reliability.max() <= 1
    x, y = np.arange(columns) + flow[0, 0], np.arange(rows)[:, np.newaxis] + flow[0, 1]
    assert 0 <= x.min() <= x.max() <= columns - 1
    assert 0 <= y.min() <= y.max() <= rows - 1


def exposed(image: NDArray[np.uint8], gain: float, offset: float = 0.0) -> NDArray[np.uint8]:
    return (image.astype(np.float32) * gain + offset).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0), (1.6, 0), (1, 60), (0.7, 50)])
def test_another_exposure_is_no_motion(gain: float, offset: float) -> None:
    """With a gain of 1.6, the brightest parts of the square become white."""
    image = with_square(*FROM)
    checked = FlowCheck(image, CELL).repair(exposed(image, gain, offset), STILL)
    np.testing.assert_array_equal(checked.flow, STILL)
    assert checked.reliability.min() > 0.9


@pytest.mark.parametrize("gain", [0.5, 0.8])
def test_what_moves_is_found_at_another_exposure_too(gain: float) -> None:
    flow = FlowCheck(with_square(*FROM), CELL).repair(exposed(with_square(*TO), gain), STILL).flow
    inside = cells(TO, margin=1)
    np.testing.assert_array_equal(flow[0, 0][inside], FROM[1] - TO[1])
    np.testing.assert_array_equal(flow[0, 1][inside], 0)


@pytest.mark.parametrize("grey", [0, 255])
def test_a_black_or_white_frame_is_not_the_same_at_another_exposure(grey: int) -> None:
    image = with_square(*FROM)
    assert FlowCheck(image, CELL).check(np.full_like(image, grey), STILL).reliability.max() < 0.5
