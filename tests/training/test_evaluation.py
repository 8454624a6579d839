import numpy as np
import pytest
import torch
from torch import Tensor, nn

from keywarp.datasets import IGNORE, LabelledClip
from keywarp.networks import DeepFeatureFlow, FeatureMap, FlowNetInception, RecognitionNetwork, Task
from keywarp.networks.flownet import Motion
from keywarp.training.evaluation import Confusion, evaluate
from tests.datasets.clips import moving_square


def test_iou_counts_hits_over_union_without_ignored_pixels() -> None:
    confusion = Confusion(3)
    truth = np.array([[0, 0, 1, 1, IGNORE]], np.uint8)
    predicted = np.array([[0, 1, 1, 1, 2]], np.uint8)
    confusion.add(truth, predicted)
    assert confusion.iou() == [0.5, pytest.approx(2 / 3), None]
    assert confusion.mean_iou() == pytest.approx((0.5 + 2 / 3) / 2)


class Brightness(RecognitionNetwork[Tensor]):
    """Features that tell white from the rest."""

    task: Task = "segmentation"
    maps = (FeatureMap(2, 16),)
    outputs = ("scores",)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        bright = nn.functional.avg_pool2d(image.mean(1, keepdim=True), 16, ceil_mode=True)
        return (torch.cat((70 - bright, bright - 70), dim=1),)

    def head(self, *features: Tensor) -> Tensor:
        return features[0]

    def predict(self, raw: Tensor) -> tuple[Tensor, ...]:
        return (torch.softmax(raw, dim=1),)


class KnownFlow(FlowNetInception):
    """The square moves one cell a frame; the key frame's age is told by where the white is."""

    def __init__(self) -> None:
        super().__init__(Brightness.maps)

    def forward(self, current: Tensor, key: Tensor) -> Motion:
        cells = (current.shape[0], 1, current.shape[2] // 8, current.shape[3] // 8)
        shift = (_left(key) - _left(current)) / 8
        flow = torch.cat((torch.full(cells, shift), torch.zeros(cells)), dim=1)
        return Motion(flow, (torch.ones(cells[0], 2, *cells[2:]),))


def _left(image: Tensor) -> float:
    """The first column with white in it."""
    return float(torch.nonzero(image[0].mean(0).amax(dim=0) > 100)[0])


def blocks(frames: int) -> LabelledClip:
    """A white 32-pixel block that moves right by one 16-pixel cell a frame over black, far from the edges."""
    source = moving_square(frames=frames, height=64, width=16 * frames + 96)
    source.clip.frames[:], source.labels[:] = 0, 0
    for index in range(frames):
        left = 16 * index + 48
        source.clip.frames[index, 16:48, left : left + 32] = 255
        source.labels[index, 16:48, left : left + 32] = 1
    return source


def test_right_flow_keeps_the_accuracy_that_copying_loses() -> None:
    network = DeepFeatureFlow(Brightness(), KnownFlow())
    accuracy = evaluate(network, blocks(8), classes=2, interval=4, multiple=16)
    assert accuracy.propagated == pytest.approx(accuracy.per_frame, abs=0.02)
    assert accuracy.copied < accuracy.propagated - 0.2
    assert accuracy.by_age[0] == accuracy.copied_by_age[0]
    assert len(accuracy.by_age) == 4
    assert accuracy.copied_by_age[3] < accuracy.copied_by_age[1]
