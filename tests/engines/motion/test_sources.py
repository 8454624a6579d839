from typing import get_args

import numpy as np
import pytest

from keywarp.datasets.middlebury import MiddleburyPair
from keywarp.engines.motion import DIS, OpticalFlow
from keywarp.engines.motion.dis import Preset
from tests.optical_flow import OpticalFlowTests


class TestDIS(OpticalFlowTests):
    @pytest.fixture(params=get_args(Preset))
    def source(self, request: pytest.FixtureRequest) -> OpticalFlow:
        return DIS(request.param)


def test_dis_is_more_accurate_than_zero_flow_on_a_real_pair(pair: MiddleburyPair) -> None:
    assert pair.error(np.zeros_like(pair.flow)) == pytest.approx(3.91, abs=0.01)
    assert pair.error(DIS().estimate(pair.current, pair.key)) < 1.2
