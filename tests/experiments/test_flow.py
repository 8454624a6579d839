"""What `bench/flow.py` measures, on pairs whose motion is known."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from keywarp.experiments import flow_sources
from keywarp.experiments.flow import KnownPair, RealPair, measure_errors, measure_photometric
from keywarp.experiments.flow_sources import Picture
from keywarp.networks import FlowNetInception, pretrained_flow
from keywarp.networks.spynet import SPyNet, load_spynet

SHIFT = 8  # half-size pixels to the right


def pictures() -> tuple[Picture, Picture]:
    """Return a current and a key image; what is at p in the current one is at p + (SHIFT, 0) in the key image."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 160 + SHIFT, 3), np.uint8)
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), np.empty(0, np.uint8), 0, 255, cv2.NORM_MINMAX)
    return np.ascontiguousarray(wide[:, SHIFT:], np.uint8), np.ascontiguousarray(wide[:, :160], np.uint8)


def exact(current: Picture, key: Picture) -> Tensor:
    flow = flow_sources.zero(current, key)
    flow[:, 0] = 2.0 * SHIFT
    return flow


def test_errors_are_in_pixels_of_the_full_image() -> None:
    current, key = pictures()
    pair = KnownPair("shift", current, key, exact(current, key))
    assert measure_errors(flow_sources.zero, [pair]) == {"shift, cells of 8": 16.0, "shift, cells of 16": 16.0}
    assert measure_errors(exact, [pair]) == {"shift, cells of 8": 0.0, "shift, cells of 16": 0.0}
    assert measure_errors(flow_sources.dis, [pair])["shift, cells of 8"] < 1.5
    ours = flow_sources.flow_network(pretrained_flow([flow_sources.map_of(8)]))
    assert measure_errors(ours, [pair])["shift, cells of 8"] < 3


def test_the_exact_motion_explains_the_image_best() -> None:
    pair = RealPair("shift", 3, *pictures())
    found = {
        name: measure_photometric(source, [pair]) for name, source in (("zero", flow_sources.zero), ("exact", exact))
    }
    assert set(found["zero"]) == {"shift, gap 3", "shift, gap 3, moved"}
    assert found["exact"]["shift, gap 3"] < 0.2 * found["zero"]["shift, gap 3"]


def test_a_bundles_graph_is_measured_as_the_network() -> None:
    torch.manual_seed(0)
    network = FlowNetInception([flow_sources.map_of(16)]).eval()
    torch.nn.init.normal_(network.flow.weight, std=0.1)
    flow = flow_sources.bundle_network(flow_sources.flow_graph(network), 16)(*pictures())
    assert flow.shape == (1, 2, 24, 40)
    assert float(flow.abs().max()) > 0


def test_spynet_reads_the_weights_of_basicvsr(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SPyNet()
    named = {
        f"spynet.basic_module.{name.removeprefix('levels.').replace('.', '.basic_module.', 1)}": value
        for name, value in network.state_dict().items()
        if name.startswith("levels.")
    }
    torch.save({"params": named}, tmp_path / "basicvsr.pth")
    pair = torch.rand(2, 1, 3, 50, 70) * 255
    with torch.inference_mode():
        torch.testing.assert_close(load_spynet(tmp_path / "basicvsr.pth")(*pair), network.eval()(*pair))
        assert network(*pair, finest=2).shape == (1, 2, 50, 70)
