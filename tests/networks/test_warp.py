import pytest
import torch
from torch import Tensor

from keywarp.networks import FeatureMap, Warp, sample

ONE = [FeatureMap(3, 16)]  # one map, as in the paper
SIZES = [(6, 8), (7, 13), (17, 40), (1, 9), (5, 1), (1, 1)]


def constant_flow(dx: float, dy: float, height: int, width: int) -> Tensor:
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, height, width)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_zero_flow_and_scale_one_are_the_identity(height: int, width: int) -> None:
    features = torch.randn(2, 3, height, width)
    [warped] = Warp(ONE)([features], torch.zeros(2, 2, height, width), [torch.ones(2, 3, height, width)])
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
    [warped] = Warp(ONE)([features], torch.zeros(1, 2, 5, 6), [scale])
    torch.testing.assert_close(warped, features * scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 13), (1, 9)])
def test_one_flow_moves_maps_of_several_strides_by_the_same_pixels(height: int, width: int) -> None:
    fine = torch.randn(1, 2, height, width)
    coarse = torch.randn(1, 3, -(-height // 4), -(-width // 4))
    warp = Warp([FeatureMap(2, 8), FeatureMap(3, 32)])
    flow = constant_flow(4, -8, height, width)  # cells of 8 pixels: one and two cells of 32
    moved = warp([fine, coarse], flow, [torch.ones_like(fine), torch.ones_like(coarse)])
    expected = sample(fine, flow), sample(coarse, constant_flow(1, -2, *coarse.shape[-2:]))
    for found, want in zip(moved, expected, strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-5)


def written_out(features: Tensor, flow: Tensor, scale: Tensor) -> Tensor:
    """Compute equations 1 to 3 explicitly, as a sum over all q of the kernel G."""
    _, _, height, width = features.shape
    warped = torch.zeros_like(features)
    for y in range(height):
        for x in range(width):
            py, px = y + flow[0, 1, y, x], x + flow[0, 0, y, x]
            for qy in range(height):
                for qx in range(width):
                    g = (1 - (qx - px).abs()).clamp(min=0) * (1 - (qy - py).abs()).clamp(min=0)
                    warped[0, :, y, x] += g * features[0, :, qy, qx]
    return warped * scale


def off_the_grid() -> tuple[Tensor, Tensor, Tensor]:
    """Return features, flow and scale in double precision. No flow is whole, since the kernel has no derivative there."""
    random = torch.Generator().manual_seed(0)
    features = torch.rand(1, 2, 4, 5, dtype=torch.double, generator=random)
    whole = torch.randint(-2, 3, (1, 2, 4, 5), generator=random)
    flow = whole + torch.rand(1, 2, 4, 5, dtype=torch.double, generator=random) * 0.8 + 0.1
    return features, flow, torch.rand(1, 2, 4, 5, dtype=torch.double, generator=random)


def test_the_warp_is_equations_1_to_3() -> None:
    features, flow, scale = off_the_grid()
    [warped] = Warp(ONE)([features], flow, [scale])
    torch.testing.assert_close(warped, written_out(features, flow, scale))


def test_the_gradient_of_the_flow_is_equation_4() -> None:
    """Compare with finite differences of the written-out sum, in double precision."""
    features, flow, scale = off_the_grid()
    flow.requires_grad_()
    [warped] = Warp(ONE)([features], flow, [scale])
    (found,) = torch.autograd.grad(warped.sum(), flow)
    step = 1e-6
    for index in range(flow.numel()):
        change = torch.zeros_like(flow).view(-1)
        change[index] = step
        moved = [written_out(features, flow.detach() + sign * change.view_as(flow), scale).sum() for sign in (1, -1)]
        assert float(found.view(-1)[index]) == pytest.approx(float((moved[0] - moved[1]) / (2 * step)), abs=1e-6)


def test_gradients_reach_features_flow_and_scale() -> None:
    inputs = tuple(x.requires_grad_() for x in off_the_grid())
    assert torch.autograd.gradcheck(lambda f, m, s: Warp(ONE)([f], m, [s]), inputs)


def test_strides_that_are_no_powers_of_2_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="powers of 2"):
        Warp([FeatureMap(2, 8), FeatureMap(2, 24)])


def test_zero_flow_is_the_identity_on_wide_maps_in_16_bits() -> None:
    """bfloat16 can't represent every step of the grid at the width of training at 1024x2048."""
    features = torch.rand(1, 3, 64, 128)
    flow = torch.zeros(1, 2, 64, 128, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(sample(features, flow), features, atol=1e-4, rtol=0)
    half = features.bfloat16()
    torch.testing.assert_close(sample(half, flow), half, atol=1e-4, rtol=2**-7)  # a last digit, no cell
