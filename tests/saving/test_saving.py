"""Whether propagation is worth it."""

import pytest

from keywarp.saving import FrameCosts, doubt, estimate


def test_speed_up_is_that_of_equation_7() -> None:
    assert FrameCosts(100.0, 10.0, 0, 0).speed_up(10) == pytest.approx(1000 / 190)
    assert FrameCosts(100.0, 10.0, 0, 0).speed_up(1) == 1


def test_a_heavy_network_with_a_light_head_is_worth_it() -> None:
    assert doubt(FrameCosts(1.0, 0.1, 0.02, 0.03)) is None


@pytest.mark.parametrize(
    ("costs", "reason"),
    [
        (FrameCosts(1.0, 0.6, 0.5, 0.0), "leaves to every frame costs 50% of a key frame"),
        (FrameCosts(1.0, 0.6, 0.1, 0.4), "maps are so large"),
        (FrameCosts(1.0, 0.6, 0.1, 0.1), "so light"),
    ],
)
def test_a_doubt_comes_with_its_reason_and_figures(costs: FrameCosts, reason: str) -> None:
    text = doubt(costs)
    assert text is not None
    assert reason in text
    assert "60% of a key frame" in text
    assert "1.5 times cheaper at interval 5, and 1.6 times at 10" in text


def test_estimates_count_head_maps_and_motion() -> None:
    costs = estimate(operations=10**11, head_operations=10**9, map_bytes=10**6, pixels=10**5)
    assert costs.key == 10**11
    assert costs.propagated == 10**9 + costs.warp + 4000 * 10**5
    assert costs.head == 10**9
    assert doubt(costs) is None
