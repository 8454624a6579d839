from typing import get_args

import numpy as np
import pytest

from keywarp.datasets.middlebury import MiddleburyPair
from keywarp.engines.motion import DIS, OpticalFlow, open_motion
from keywarp.engines.motion.dis import Preset
from tests.optical_flow import OpticalFlowTests


class TestDIS(OpticalFlowTests):
    @pytest.fixture(params=get_args(Preset))
    def source(self, request: pytest.FixtureRequest) -> OpticalFlow:
        return DIS(request.param)


def test_dis_is_more_accurate_than_zero_flow_on_a_real_pair(pair: MiddleburyPair) -> None:
    assert pair.error(np.zeros_like(pair.flow)) == pytest.approx(3.91, abs=0.01)
    assert pair.error(DIS().estimate(pair.current, pair.key)) < 1.2


def test_dis_is_opened_by_its_name() -> None:
    assert isinstance(open_motion("dis"), DIS)


def test_motion_inside_the_bundle_is_returned_as_its_name() -> None:
    assert open_motion("network") == "network"
    assert open_motion("none") == "none"


def test_an_unknown_motion_source_is_refused_with_a_list_of_those_there_are() -> None:
    with pytest.raises(ValueError, match="no motion source 'raft': use one of network, none, dis"):
        open_motion("raft")  # type: ignore[arg-type]
