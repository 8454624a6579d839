from typing import Any, cast, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.datasets.middlebury import MiddleburyPair
from keywarp.engines import FrameError
from keywarp.engines.motion import DIS, MotionName, OpticalFlow, open_motion
from keywarp.engines.motion.dis import Preset
from keywarp.engines.motion.siftflow import SIFTFlow

SOURCES: list[OpticalFlow] = [
    *(DIS(preset) for preset in get_args(Preset)),
    SIFTFlow(SIFTFlow.FAST),
    SIFTFlow(SIFTFlow.SLOW),
]
sources = pytest.mark.parametrize("source", SOURCES)


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@sources
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (16, 16), (12, 300), (16, 300), (33, 21)])
def test_every_size_has_a_flow(source: OpticalFlow, size: tuple[int, int]) -> None:
    flow = source.estimate(image(*size), image(*size, seed=1))
    assert flow.shape == (*size, 2)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


@sources
def test_the_flow_points_from_the_current_frame_to_the_key_frame(source: OpticalFlow, pair: MiddleburyPair) -> None:
    key = pair.crop(0, 3, 100, 160).current
    current = pair.crop(0, 0, 100, 160).current  # its pixels are 3 to the right of the key frame's
    dx, dy = np.median(source.estimate(current, key)[20:-20, 20:-20], axis=(0, 1))
    assert dx == pytest.approx(-3, abs=0.1)
    assert dy == pytest.approx(0, abs=0.1)


@sources
def test_what_is_no_pair_of_images_is_refused(source: OpticalFlow) -> None:
    good = image(24, 24)
    with pytest.raises(FrameError, match=r"one size, got \(24, 24\) and \(24, 25\)"):
        source.estimate(good, image(24, 25))
    bad: list[NDArray[Any]] = [good.astype(np.float32), good[..., 0], good[..., :2], good[:0]]
    for image_ in bad:
        with pytest.raises(FrameError, match="uint8"):
            source.estimate(image_, image_)


def test_dis_on_a_real_pair_is_nearer_the_truth_than_zero_flow(pair: MiddleburyPair) -> None:
    assert pair.error(np.zeros_like(pair.flow)) == pytest.approx(3.91, abs=0.01)
    assert pair.error(DIS().estimate(pair.current, pair.key)) < 1.2


@pytest.mark.parametrize("name", ["dis", "sift-fast", "sift-slow"])
def test_a_motion_source_is_opened_by_its_name(name: MotionName) -> None:
    assert cast("OpticalFlow", open_motion(name)).name == name


def test_motion_inside_the_bundle_needs_nothing_opened() -> None:
    assert open_motion("network") == "network"
    assert open_motion("none") == "none"


def test_an_unknown_motion_source_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'raft'; there are network, none, dis, sift-fast, sift-slow"):
        open_motion("raft")  # type: ignore[call-overload]
