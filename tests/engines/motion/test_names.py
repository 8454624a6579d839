from typing import get_args

import pytest

from keywarp.engines.motion import MotionName, MotionSource


@pytest.mark.parametrize("name", get_args(MotionName))
def test_every_name_can_be_parsed_and_printed(name: MotionName) -> None:
    assert str(MotionSource.parse(name)) == name


def test_network_is_the_flow_network_with_its_scale_field() -> None:
    assert MotionSource.parse("network") == MotionSource("flow", scale=True)
    assert MotionSource.parse("network-chained") == MotionSource("flow", chained=True, scale=True)
    assert MotionSource.parse("flow") == MotionSource("flow")


@pytest.mark.parametrize("name", ["raft", "", "none-chained", "flow+scale", "none-repaired+scale", "dis+scale-chained"])
def test_an_unknown_name_is_refused_with_a_list_of_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"no motion source '{name.replace('+', '.')}': use one of network, "):
        MotionSource.parse(name)
