from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.choices import SIFTFlowName
from keywarp.datasets.middlebury import MiddleburyPair
from keywarp.engines import Engine, FixedInterval, OpticalFlow, StreamSession
from keywarp.experiments.siftflow import engine_motion, open_siftflow
from keywarp.experiments.siftflow.belief_propagation import match_costs, median_cost
from keywarp.experiments.siftflow.descriptors import dense_sift
from keywarp.experiments.siftflow.flow import SIFTFlow, SIFTFlowOptions
from tests.coloured import assert_follows_a_moving_picture
from tests.optical_flow import OpticalFlowTests
from tests.tiny_bundle import tiny_bundle

ONE_LEVEL = SIFTFlowOptions(levels=1, top_window=6)


def energy(flow: NDArray[np.float32], pair: MiddleburyPair, options: SIFTFlowOptions) -> float:
    """Return the energy of Liu et al. (section 2) in units of descriptors, with the threshold of the estimate."""
    current, key = dense_sift(pair.current, options.cell), dense_sift(pair.key, options.cell)
    height, width = flow.shape[:2]
    windows = np.zeros((2, height, width), np.int32)
    threshold = median_cost(match_costs(current, key, windows, options.top_window))
    y, x = np.mgrid[:height, :width]
    there_x, there_y = (x + flow[..., 0]).astype(int), (y + flow[..., 1]).astype(int)
    inside = (there_x >= 0) & (there_x < width) & (there_y >= 0) & (there_y < height)
    data = np.full((height, width), float(threshold))
    distances = np.abs(current[inside].astype(int) - key[there_y[inside], there_x[inside]]).sum(axis=-1)
    data[inside] = np.minimum(distances, threshold)
    total = float(data.sum() + 255 * options.shrinkage * np.abs(flow).sum())
    for axis in (0, 1):
        difference = 255 * options.smoothness * np.abs(np.diff(flow, axis=axis))
        total += float(np.minimum(difference, 255 * options.discontinuity).sum())
    return total


class TestSIFTFlow(OpticalFlowTests):
    @pytest.fixture(params=[SIFTFlow.FAST, SIFTFlow.SLOW], ids=["fast", "slow"])
    def source(self, request: pytest.FixtureRequest) -> OpticalFlow:
        return SIFTFlow(request.param)


def texture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("dx", "dy"), [(3, -2), (-11, 7), (0, 20)])
def test_a_known_shift_is_found_exactly_even_where_it_leads_out_of_the_key_image(dx: int, dy: int) -> None:
    scene = texture(130, 150)
    key = scene[25:105, 25:125]
    current = scene[25 + dy : 105 + dy, 25 + dx : 125 + dx]
    assert (SIFTFlow().estimate(current, key) == (dx, dy)).all()


@pytest.mark.parametrize("options", [SIFTFlow.FAST, SIFTFlow.SLOW])
def test_identical_images_have_zero_flow(pair: MiddleburyPair, options: SIFTFlowOptions) -> None:
    image = pair.crop(100, 100, 63, 81).current.copy()
    image[:30] = 128  # a flat area, which has no texture to match
    assert not SIFTFlow(options).estimate(image, image).any()


def test_images_without_texture_have_zero_flow() -> None:
    assert not SIFTFlow().estimate(np.full((40, 50, 3), 60, np.uint8), np.full((40, 50, 3), 90, np.uint8)).any()


def test_equal_images_give_equal_flow(pair: MiddleburyPair) -> None:
    part = pair.crop(100, 300, 64, 96)
    first, again = (SIFTFlow().estimate(part.current.copy(), part.key.copy()) for _ in range(2))
    assert first.any()
    np.testing.assert_array_equal(first, again)


def test_the_found_flow_has_less_energy_than_zero_flow_and_the_rounded_true_flow(pair: MiddleburyPair) -> None:
    part = pair.crop(200, 180, 120, 160)
    found = SIFTFlow(ONE_LEVEL).estimate(part.current, part.key)
    least = energy(found, part, ONE_LEVEL)
    assert least < 0.8 * energy(np.zeros_like(found), part, ONE_LEVEL)
    assert least < energy(np.rint(part.flow), part, ONE_LEVEL)


def test_the_fast_flow_is_integer_and_the_slow_one_finer(pair: MiddleburyPair) -> None:
    part = pair.crop(200, 200, 64, 64)
    fast, slow = (SIFTFlow(options).estimate(part.current, part.key) for options in (SIFTFlow.FAST, SIFTFlow.SLOW))
    np.testing.assert_array_equal(fast, np.rint(fast))
    np.testing.assert_array_equal(slow * 8, np.rint(slow * 8))  # the mean of 2 x 2 half pixels
    assert (slow != np.rint(slow)).any()


def test_the_slow_flow_is_more_accurate_than_the_fast_one_and_both_than_zero_flow(pair: MiddleburyPair) -> None:
    part = pair.crop(120, 200, 200, 240)
    fast, slow = (
        part.error(SIFTFlow(options).estimate(part.current, part.key)) for options in (SIFTFlow.FAST, SIFTFlow.SLOW)
    )
    assert slow < 0.85 * fast
    assert fast < 0.5 * part.error(np.zeros_like(part.flow))


@pytest.mark.parametrize("name", get_args(SIFTFlowName))
def test_the_papers_settings_are_opened_by_their_names(name: SIFTFlowName) -> None:
    assert open_siftflow(name).name == name


def test_an_engine_runs_on_it_and_follows_a_moving_picture(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", flow=(7.0, 7.0), short_side=128, long_side=1024)
    engine = Engine(bundle, precision="fp32", cache=tmp_path / "cache", motion=engine_motion("sift-fast"))
    assert engine.motion == "sift-fast"
    assert_follows_a_moving_picture(StreamSession(engine, FixedInterval(10)))


def test_other_settings_do_not_have_the_papers_names() -> None:
    assert SIFTFlow(replace(SIFTFlow.FAST, window=3)).name == "sift"
