from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from keywarp.datasets import Image
from keywarp.experiments.shallow_feature_flow import ShallowFeatureFlow
from keywarp.training.evaluation import Features, Pairs, copy_features
from tests.datasets.synthetic import textured
from tests.shift import Shift
from tests.training.tiny import networks

CURRENT, *KEYS = (textured(64, 96, seed) for seed in range(3))
PAIRS = Pairs("pairs", CURRENT, [CURRENT, *KEYS], range(3))
FEATURES: Features = (torch.randn(3, 8, 4, 6, generator=torch.Generator().manual_seed(0)),)


class Counted(Shift):
    """Counts what it's asked for, and sees that it's asked in the right order."""

    calls = 0

    def estimate(self, current: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        assert current.shape == (32, 48, 3)
        assert np.abs(current.astype(int) - half(CURRENT)).max() <= 1
        assert min(np.abs(key.astype(int) - half(image)).max() for image in KEYS) <= 1
        return super().estimate(current, key)


def half(image: Image) -> NDArray[np.float64]:
    return np.asarray(image.reshape(32, 2, 48, 2, 3).mean(axis=(1, 3)), np.float64)


def open_flow(file: Path, pixels: int, save_every: float = 60) -> tuple[ShallowFeatureFlow, Counted]:
    source = Counted(pixels)
    return ShallowFeatureFlow(source, file, save_every), source


def test_without_motion_features_are_copied(tmp_path: Path) -> None:
    flow, _ = open_flow(tmp_path / "flows.npz", 0)
    network = networks()
    [moved], [copied] = (way(network, FEATURES, PAIRS) for way in (flow, copy_features))
    torch.testing.assert_close(moved, copied, rtol=0, atol=1e-5)


def test_features_move_with_the_picture_but_those_of_the_frame_itself(tmp_path: Path) -> None:
    flow, _ = open_flow(tmp_path / "flows.npz", 32)  # two cells to the right
    [features], [moved] = FEATURES, flow(networks(), FEATURES, PAIRS)
    assert torch.equal(moved[0], features[0])
    torch.testing.assert_close(moved[1:, :, :, 2:], features[1:, :, :, :-2], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[1:, :, :, :2], torch.zeros(2, 8, 4, 2), rtol=0, atol=1e-5)  # from out of view


def test_the_frame_itself_needs_no_flow(tmp_path: Path) -> None:
    flow, source = open_flow(tmp_path / "flows.npz", 32)
    first = (FEATURES[0][:1],)
    assert flow(networks(), first, Pairs("key", CURRENT, [CURRENT], [0])) == first
    assert source.calls == 0
    flow.save()
    assert not (tmp_path / "flows.npz").exists()  # there is nothing to keep


def test_flows_are_kept_and_used_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "flows.npz"
    flow, source = open_flow(file, 32)
    network = networks()
    [first], [second] = (flow(network, FEATURES, PAIRS) for _ in range(2))
    assert source.calls == 2
    flow.save()
    again, unused = open_flow(file, 0)
    [third] = again(network, FEATURES, PAIRS)
    assert unused.calls == 0
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert [path.name for path in file.parent.iterdir()] == ["flows.npz"]


def test_flows_are_saved_at_intervals_while_they_are_estimated(tmp_path: Path) -> None:
    file = tmp_path / "flows.npz"
    flow, _ = open_flow(file, 32, save_every=0)
    flow(networks(), FEATURES, PAIRS)
    with np.load(file) as kept:
        assert len(kept.files) == 2
