from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from keywarp.datasets.flying_crowds import FlyingCrowds
from keywarp.networks import FeatureMap, FlowNetInception, FlowPyramid, WeightsError, pretrained_flow
from keywarp.networks.complexity import layer_operations
from keywarp.networks.flow_pyramid import RADIUS, correlate
from keywarp.networks.flow_weights import SHIPPED, FlowWeights, load_flow_weights, save_flow_weights
from keywarp.networks.flownet import PAPER_MAP
from keywarp.training.flow import end_point_error
from keywarp.training.images import normalised

MAPS = (FeatureMap(8, 16), FeatureMap(4, 8))


def texture(height: int, width: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Return an image (H, W, 3) of soft random spots."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX), np.uint8)  # type: ignore[call-overload]


def shifted_pair(x: int, y: int, height: int = 96, width: int = 160) -> tuple[Tensor, Tensor]:
    """Return half-size images, whose pixels come from (x, y) pixels further in the second."""
    whole = torch.from_numpy(texture(height + 64, width + 64))[None]
    current, key = (whole[:, 32 + dy : 32 + dy + height, 32 + dx : 32 + dx + width] for dx, dy in ((x, y), (0, 0)))
    return normalised(current), normalised(key)


@pytest.mark.parametrize(("height", "width", "radius"), [(6, 7, 2), (3, 2, 4), (1, 1, 1)])
def test_the_comparison_is_the_mean_product_with_every_cell_of_a_window(height: int, width: int, radius: int) -> None:
    torch.manual_seed(0)
    current, key = torch.randn(2, 2, 5, height, width)
    padded = functional.pad(key, (radius,) * 4)
    expected = [
        (current * padded[:, :, y : y + height, x : x + width]).mean(dim=1)
        for y in range(2 * radius + 1)
        for x in range(2 * radius + 1)
    ]
    torch.testing.assert_close(correlate(current, key, radius), torch.stack(expected, dim=1))


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_it_costs_as_much_as_flownet_inception_on_the_papers_maps(share: float) -> None:
    maps = (PAPER_MAP,)
    half = (1, 3, 300, 500)
    with torch.device("meta"):
        ours, theirs = (
            sum(layer_operations(network, half, half).values())
            for network in (FlowPyramid(maps, share), FlowNetInception(maps, share))
        )
    assert ours <= 1.01 * theirs


@pytest.mark.parametrize("shift", [(16, 0), (0, -16), (-32, 16)])
def test_the_best_match_is_the_true_motion(shift: tuple[int, int]) -> None:
    with torch.inference_mode():
        first, *_ = pretrained_flow(MAPS).eval().steps(*shifted_pair(*shift))
    best = first.scores.argmax(dim=1)[0, 1:-1, 3:-3]  # cells of 16 half-size pixels
    span = 2 * RADIUS + 1
    expected = (shift[1] // 16 + RADIUS) * span + shift[0] // 16 + RADIUS
    assert (best == expected).float().mean() > 0.8


def test_gradients_pass_through_the_flow_unless_steps_learn_apart() -> None:
    torch.manual_seed(0)
    network = FlowPyramid(MAPS)
    pair = shifted_pair(4, 0)
    for apart in (False, True):
        steps = network.steps(*pair, apart=apart)
        assert steps[-1].before.requires_grad != apart


def test_the_shipped_network_finds_large_motion_of_small_objects() -> None:
    source = FlyingCrowds([texture(300, 400), 255 - texture(350, 360)[::-1]], 128, 192)
    pairs = [source.flow_pair(np.random.default_rng((5, number))) for number in range(6)]
    network = pretrained_flow([FeatureMap(4, 8)]).eval()
    current, key = (normalised(torch.from_numpy(np.stack([getattr(p, n) for p in pairs]))) for n in ("current", "key"))
    target = functional.avg_pool2d(torch.from_numpy(np.stack([p.flow for p in pairs])).permute(0, 3, 1, 2), 4) / 4
    with torch.inference_mode():
        found = network(current, key).flow
    assert end_point_error(found, target) < 0.5 * end_point_error(torch.zeros_like(target), target)


def test_the_shipped_network_sees_no_motion_where_there_is_none() -> None:
    image, _ = shifted_pair(0, 0)
    with torch.inference_mode():
        flow = pretrained_flow([FeatureMap(4, 8)]).eval()(image, image).flow
    assert float(flow.norm(dim=1).mean()) < 0.1  # cells


def test_the_flow_ends_at_the_border_of_the_map() -> None:
    network = pretrained_flow([FeatureMap(4, 8)]).eval()
    with torch.inference_mode():
        pair = shifted_pair(-16, 16)
        step, flow = network.steps(*pair)[-1].flow, network(*pair).flow
    grid = torch.stack(torch.meshgrid(torch.arange(flow.shape[3]), torch.arange(flow.shape[2]), indexing="xy"))
    last = torch.tensor([flow.shape[3] - 1, flow.shape[2] - 1]).view(1, 2, 1, 1)
    torch.testing.assert_close(
        flow, (grid + step).clamp(min=torch.zeros_like(last), max=last) - grid, atol=1e-5, rtol=0
    )
    assert not torch.equal(flow, step)


def test_the_shipped_weights_fit_all_feature_maps_and_start_at_scale_1() -> None:
    network = pretrained_flow(MAPS).eval()
    with torch.inference_mode():
        motion = network(*shifted_pair(8, 4))
    assert [tuple(scale.shape[1:]) for scale in motion.scales] == [(8, 12, 20), (4, 24, 40)]
    assert all(torch.equal(scale, torch.ones_like(scale)) for scale in motion.scales)
    assert SHIPPED.stat().st_size < 4e6
    assert load_flow_weights(SHIPPED).license


def test_saved_weights_come_back_without_scale_fields(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FlowPyramid(MAPS, 0.25)
    save_flow_weights(FlowWeights(0.25, "MIT", {"steps": 3}, network.state_dict()), tmp_path / "w.pt")
    found = load_flow_weights(tmp_path / "w.pt")
    assert (found.share, found.license, found.description) == (0.25, "MIT", {"steps": 3})
    loaded = pretrained_flow((FeatureMap(3, 8),), tmp_path / "w.pt")
    torch.testing.assert_close(loaded.estimator.predict.weight, network.estimator.predict.weight, atol=1e-3, rtol=1e-2)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"can't read .*missing\.pt"):
        pretrained_flow(MAPS, tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(WeightsError, match="not a file of flow weights"):
        pretrained_flow(MAPS, tmp_path / "text.pt")
    save_flow_weights(FlowWeights(1, "MIT", {}, {"conv1.weight": torch.zeros(2, 2)}), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="missing or unknown"):
        pretrained_flow(MAPS, tmp_path / "other.pt")
