import pytest
import torch
from torch import Tensor

from keywarp.networks import Warp, sample

SIZES = [(6, 8), (7, 13), (17, 40), (1, 9), (5, 1), (1, 1)]


def constant_flow(dx: float, dy: float, height: int, width: int) -> Tensor:
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, height, width)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_zero_flow_and_scale_one_are_the_identity(height: int, width: int) -> None:
    features = torch.randn(2, 3, height, width)
    warped = Warp()(features, torch.zeros(2, 2, height, width), torch.ones(2, 3, height, width))
    torch.testing.assert_close(warped, features, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (-1, 0), (0, 3), (1, -2)])
def test_an_integer_shift_is_exact_inside_and_zero_outside(dx: int, dy: int) -> None:
    height, width = 7, 9
    features = torch.randn(1, 4, height, width)
    expected = torch.zeros_like(features)
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                expected[..., y, x] = features[..., y + dy, x + dx]
    torch.testing.assert_close(sample(features, constant_flow(dx, dy, height, width)), expected, rtol=0, atol=1e-5)


def test_half_a_cell_is_the_mean_of_two_neighbours() -> None:
    features = torch.randn(1, 2, 5, 6)
    warped = sample(features, constant_flow(0.5, 0, 5, 6))
    torch.testing.assert_close(warped[..., :-1], (features[..., :-1] + features[..., 1:]) / 2, rtol=0, atol=1e-5)


def test_flow_in_cells_does_not_depend_on_the_resolution() -> None:
    large = torch.randn(1, 2, 12, 20)
    small = large[..., :8, :11]
    shift = constant_flow(1.25, -0.5, 12, 20)
    whole, part = sample(large, shift), sample(small, shift[..., :8, :11])
    torch.testing.assert_close(part[..., 1:7, :9], whole[..., 1:7, :9], rtol=0, atol=1e-5)


def test_the_scale_multiplies_every_value() -> None:
    features, scale = torch.randn(1, 3, 5, 6), torch.rand(1, 3, 5, 6)
    torch.testing.assert_close(Warp()(features, torch.zeros(1, 2, 5, 6), scale), features * scale, rtol=0, atol=1e-5)


def test_gradients_reach_features_flow_and_scale() -> None:
    features = torch.randn(1, 2, 4, 5, dtype=torch.double, requires_grad=True)
    # away from whole cells, where bilinear interpolation has no derivative
    flow = (torch.rand(1, 2, 4, 5, dtype=torch.double) * 0.8 + 0.1).requires_grad_()
    scale = torch.rand(1, 2, 4, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(Warp(), (features, flow, scale))
