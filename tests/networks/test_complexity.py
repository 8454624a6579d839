import pytest
import torch
from torch import Tensor, nn

from keywarp.networks.complexity import (
    PAPER_RATIOS,
    Complexity,
    ComplexityRatio,
    layer_operations,
    measure,
    measure_networks,
    table_2,
)


def test_a_convolution_costs_its_kernel_at_every_output() -> None:
    layer = nn.Conv2d(3, 8, 5, stride=2, padding=2)  # 7 x 9 outputs for 13 x 17
    assert measure(layer, (2, 3, 13, 17)) == Complexity(2 * (2 * 8 * 7 * 9) * (3 * 5 * 5), 8 * 3 * 5 * 5 + 8)


def test_a_grouped_convolution_costs_its_groups_inputs() -> None:
    layer = nn.Conv2d(8, 12, 3, groups=4, bias=False)
    assert measure(layer, (1, 8, 6, 7)) == Complexity(2 * (12 * 4 * 5) * (2 * 3 * 3), 12 * 2 * 3 * 3)


def test_dilation_costs_nothing() -> None:
    plain, dilated = (nn.Conv2d(4, 4, 3, padding=d, dilation=d) for d in (1, 6))
    assert measure(plain, (1, 4, 20, 20)) == measure(dilated, (1, 4, 20, 20))


def test_a_deconvolution_costs_its_kernel_at_every_input() -> None:
    layer = nn.ConvTranspose2d(6, 10, 4, stride=2, groups=2)
    assert measure(layer, (1, 6, 5, 7)) == Complexity(2 * (6 * 5 * 7) * (5 * 4 * 4), 6 * 5 * 4 * 4 + 10)


def test_a_matrix_product_costs_its_inputs_at_every_output() -> None:
    assert measure(nn.Linear(20, 30), (4, 20)) == Complexity(2 * 4 * 30 * 20, 20 * 30 + 30)


def test_a_layer_that_runs_twice_counts_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)[..., :2])  # type: ignore[no-any-return]

    assert layer_operations(Twice(), (1, 3, 4, 4)) == {"layer": 2 * (3 * 16 + 3 * 8) * 3}


def test_counting_leaves_a_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    counts = layer_operations(network, (1, 3, 8, 8))
    assert network[1].training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    counted = dict(counts)
    network(torch.zeros(1, 3, 8, 8))
    assert counts == counted  # later passes aren't counted any more


def test_a_layer_that_is_called_by_keyword_counts() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(input=x)  # type: ignore[no-any-return]

    assert layer_operations(ByKeyword(), (1, 3, 4, 5)) == {"layer": 2 * 20 * 3 * 2}


def test_a_network_on_the_meta_device_counts_the_same() -> None:
    with torch.device("meta"):
        meta = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 2, 4))
    real = meta.to_empty(device="cpu")
    assert measure(meta, (1, 3, 9, 9)) == measure(real, (1, 3, 9, 9))


@pytest.mark.parametrize("features", PAPER_RATIOS)
@pytest.mark.parametrize("flow", PAPER_RATIOS["resnet50"])
def test_table_2_equals_the_papers_within_3_percent(features: str, flow: str) -> None:
    pair = table_2()[features][flow]
    assert pair.paper == PAPER_RATIOS[features][flow]
    assert pair.ratio == pytest.approx(pair.paper, rel=0.03)
    assert pair.ratio < pair.ratio_without_scale


def test_flownet_half_and_inception_cost_a_quarter_and_an_eighth() -> None:
    found = measure_networks()
    assert found["flownet"].operations / found["flownet_half"].operations == pytest.approx(4, rel=0.1)
    assert found["flownet"].operations / found["flownet_inception"].operations == pytest.approx(8, rel=0.1)


def test_the_speed_up_is_equation_7() -> None:
    pair = ComplexityRatio(ratio=12.71, ratio_without_scale=13.2, paper=12.71)
    assert pair.speed_up(1) == 1
    assert pair.speed_up(10) == pytest.approx(5.85, abs=0.005)


def test_the_costs_of_heads_and_warp_follow_from_their_sizes() -> None:
    found = measure_networks()
    assert list(found)[-3:] == ["segmentation_head", "detection_head", "warp"]
    cells = 38 * 63
    assert found["segmentation_head"] == Complexity(2 * cells * 1024 * 20, 1024 * 20 + 20)
    # half of the channels each: proposals from 6 values for each of 9 anchors, 7x7 bins of 31 classes and 4 deltas
    outputs = 6 * 9 + 49 * (31 + 4)
    assert found["detection_head"] == Complexity(2 * cells * 512 * outputs, 512 * outputs + outputs)
    assert found["warp"] == Complexity(8 * cells * 1024, 0)
