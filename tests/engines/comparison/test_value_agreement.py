"""Agreement of dense maps, on cases made by hand and on a clip."""

from pathlib import Path

import numpy as np
import pytest

from keywarp.engines import DenseMap, FixedInterval
from keywarp.engines.comparison import Options, compare, open_measure
from keywarp.engines.comparison.truths import Truths
from keywarp.engines.comparison.value_agreement import TOLERANCE, ValueAgreement, value_range
from tests.engines.comparison.film import walk
from tests.tiny_bundle import tiny_bundle

MEASURE = ValueAgreement()
RAMP = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)


def agreement(found: np.ndarray, expected: np.ndarray) -> float:
    return MEASURE.agreement(MEASURE.count(DenseMap(found), DenseMap(expected)))


def figures(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    return MEASURE.figures(MEASURE.count(DenseMap(found), DenseMap(expected)))


def heat(left: int = 40) -> np.ndarray:
    """A map that is 0 but for one hot object of 1.4 % of its pixels."""
    values = np.zeros((100, 100), np.float32)
    values[44:56, left : left + 12] = 1
    return values


def test_values_agree_within_the_tolerance() -> None:
    assert agreement(RAMP, RAMP) == 1
    assert agreement(RAMP + 0.9 * np.float32(TOLERANCE), RAMP) == 1
    assert agreement(RAMP + 1.1 * np.float32(TOLERANCE), RAMP) < 0.05
    assert figures(RAMP + np.float32(0.02), RAMP)["error"] == pytest.approx(0.02, rel=0.05)
    assert figures(RAMP, RAMP) == {"pixels": 1, "error": 0}


def test_factor_and_offset_of_the_map_do_not_matter() -> None:
    noisy = RAMP + np.random.default_rng(0).normal(0, 0.05, RAMP.shape).astype(np.float32)
    plain = agreement(noisy, RAMP)
    assert 0.5 < plain < 0.9
    for factor, offset in ((80, 0), (0.01, 5), (-3, 100)):
        assert agreement(factor * noisy + offset, factor * RAMP + offset) == pytest.approx(plain, abs=0.01)


def test_a_small_object_that_is_lost_counts_as_much_as_the_flat_rest() -> None:
    nothing = np.zeros_like(heat())
    assert figures(nothing, heat())["pixels"] > 0.98
    assert agreement(nothing, heat()) < 0.51
    assert agreement(heat(52), heat()) < 0.51  # it is there, but in another place
    assert 0.8 < agreement(heat(42), heat()) < 0.95
    assert agreement(heat(), heat()) == 1


def test_an_object_that_is_not_there_lowers_the_agreement() -> None:
    assert agreement(np.maximum(heat(), heat(70)), heat()) < 0.9


def test_single_outliers_do_not_stretch_the_range() -> None:
    spiked = RAMP.copy()
    spiked[50, 50] = 1e6
    assert value_range(spiked) == pytest.approx((0, 1), abs=0.01)
    assert agreement(RAMP + 2 * np.float32(TOLERANCE), spiked) < 0.2
    other = spiked.copy()
    other[50, 50] = 5e5
    assert agreement(other, spiked) == 1  # both are beyond everything else


def test_a_flat_map_agrees_with_itself_only() -> None:
    flat = np.full((10, 10), 3, np.float32)
    assert agreement(flat * np.float32(1 + 1e-8), flat) == 1
    assert agreement(flat + 1, flat) == 0
    assert figures(flat + 1, flat) == {"pixels": 0, "error": 1}


def test_pixels_that_do_not_agree_are_mistakes() -> None:
    assert MEASURE.mistakes(MEASURE.count(DenseMap(heat(42)), DenseMap(heat()))) == 2 * 2 * 12
    assert MEASURE.mistakes(MEASURE.count(DenseMap(heat()), DenseMap(heat()))) == 0


def test_agreement_over_frames_is_that_of_all_their_pixels() -> None:
    good, bad = (MEASURE.count(DenseMap(x), DenseMap(heat())) for x in (heat(), np.zeros_like(heat())))
    assert MEASURE.agreement(good) > MEASURE.agreement(good + bad) > MEASURE.agreement(bad)
    assert MEASURE.figures(good + bad)["pixels"] == pytest.approx(1 - 0.0144 / 2)


def test_a_comparison_finds_how_far_the_flow_follows(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "follower", dense=True, flow=(-1.0, 0.0))
    options = Options(
        motions=("none", "flow"),
        intervals=(2, 3),
        schedules={"fixed": FixedInterval(2)},
        backend="onnxruntime",
        precision="fp32",
        stride=1,
        cache=tmp_path,
    )
    comparison = compare(bundle, [walk()], options)
    copied, flow = comparison.sources["none"], comparison.sources["flow"]
    assert (comparison.task, comparison.measure) == ("dense", "within 5 %")
    assert copied.by_age == {1: pytest.approx(0.48, abs=0.02), 2: pytest.approx(0.48, abs=0.02)}
    assert flow.by_age[1] > 0.95 > 0.5 > flow.by_age[2]
    assert flow.figures_by_age["pixels"][1] > 0.95
    assert comparison.self_agreement == pytest.approx(0.46, abs=0.04)  # a pixel is 1/16 of a cell: more than 5 %
    fixed = {s.source: s.agreement for s in comparison.schedules}
    assert fixed["flow"] > 0.95 > fixed["none"]


def test_truths_that_were_kept_agree_fully(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    maps = [DenseMap((1000 * random.random((30, 40)) - 200).astype(np.float32)), DenseMap(np.zeros((3, 4), np.float32))]
    truths = Truths(tmp_path / "truths")
    for frame, found in enumerate(maps):
        truths.add(0, frame, found)
    truths.flush()
    measure = open_measure(tiny_bundle(tmp_path / "m", dense=True).manifest)
    for kept in (truths, Truths(tmp_path / "truths")):
        for frame, found in enumerate(maps):
            read = kept.get(0, frame, found)
            assert read is not None
            counts = measure.count(read, found)
            assert measure.agreement(counts) == 1
            assert measure.figures(counts)["error"] < 1e-3
