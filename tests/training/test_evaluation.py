from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.datasets import Boxes, DataError, Image, LabelledClip, Snippet, Truth
from keywarp.networks import (
    DeepFeatureFlow,
    DetectionMaps,
    DetectionNetwork,
    FeatureMap,
    FlowNetInception,
    RecognitionNetwork,
    ResNetFeatures,
    ResNetOptions,
    Task,
)
from keywarp.networks.flownet import FlowPrediction
from keywarp.networks.regions import RegionOptions
from keywarp.training.evaluation import Accuracy, Propagation, copy_features, evaluate, evaluate_stream
from tests.datasets.synthetic import Squares, moving_square

BLACK, WHITE = (np.full((16, 32, 3), value, np.uint8) for value in (0, 255))
COPIED: dict[str, Propagation] = {"copied": copy_features}


class Brightness(RecognitionNetwork[Tensor]):
    """Segments white pixels by their brightness."""

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
    """Computes the flow of white blocks that move sideways from their positions."""

    def __init__(self, maps: Sequence[FeatureMap] = Brightness.maps) -> None:
        super().__init__(maps, share=0.1)

    def forward(self, current: Tensor, key: Tensor) -> FlowPrediction:
        count, _, height, width = current.shape  # of half-size images
        shift = (_left(key) - _left(current)).view(-1, 1, 1, 1) / 8
        flow = torch.zeros(count, 2, height // 8, width // 8) + torch.cat((shift, torch.zeros_like(shift)), dim=1)
        return FlowPrediction(flow, (torch.ones(count, self.maps[0].channels, height // 8, width // 8),))


def _left(images: Tensor) -> Tensor:
    """Return the first column with white in each image."""
    return (images.mean(1).amax(dim=1) > 100).float().argmax(dim=1).float()


def blocks(frames: int) -> LabelledClip:
    """Return a clip of a white 32-pixel block on black that moves right by one 16-pixel cell per frame."""
    source = moving_square(frames=frames, height=64, width=16 * frames + 96)
    source.clip.frames[:], source.labels[:] = 0, 0
    for index in range(frames):
        left = 16 * index + 48
        source.clip.frames[index, 16:48, left : left + 32] = 255
        source.labels[index, 16:48, left : left + 32] = 1
    return source


@dataclass(frozen=True)
class Snippets:
    """Snippets with a labelled last frame."""

    given: Sequence[tuple[Sequence[Image], Truth]]

    def __len__(self) -> int:
        return len(self.given)

    def snippets(self, length: int) -> Iterator[Snippet]:
        for number, (frames, truth) in enumerate(self.given):
            assert len(frames) <= length
            yield Snippet(str(number), frames, truth)


def all_of(label: int) -> Truth:
    return Truth(labels=np.full((16, 32), label, np.uint8))


def network() -> DeepFeatureFlow[Any]:
    return DeepFeatureFlow(Brightness(), KnownFlow())


def test_accuracy_is_measured_by_the_age_of_the_key_frame() -> None:
    source = Snippets([([BLACK, WHITE, WHITE], all_of(1)), ([WHITE, WHITE, BLACK], all_of(0))])
    found = evaluate(network(), source, classes=2, interval=3, propagations=COPIED)["copied"]
    # age 0: both are right; age 1: the second one looks white, IoU 0 and 1/2; age 2: both are wrong
    assert found.by_age == pytest.approx((1, 0.25, 0))
    assert found.mean == pytest.approx(1.25 / 3)
    assert found.worst == 0
    assert found.per_class == pytest.approx(((1 + 0 + 0) / 3, (1 + 1 / 2 + 0) / 3))  # black, white
    assert found.metric == "mIoU"


def test_a_short_video_counts_only_for_the_ages_that_it_has() -> None:
    source = Snippets([([BLACK, WHITE, WHITE], all_of(1)), ([BLACK], all_of(1))])
    found = evaluate(network(), source, classes=2, interval=3, propagations=COPIED)["copied"]
    assert found.by_age == (0.5, 1, 0)


def test_a_still_image_is_its_own_only_key_frame() -> None:
    found = evaluate(network(), Snippets([([WHITE], all_of(1))]), classes=2, interval=3)
    assert {name: accuracy.by_age for name, accuracy in found.items()} == dict.fromkeys(found, (1.0,))


def test_the_accuracy_at_a_shorter_interval_is_that_of_the_first_ages() -> None:
    accuracy = Accuracy("mIoU", mean=0.5, worst=0.25, by_age=(0.9, 0.7, 0.25, 0.15), per_class=(None, 0.5))
    shorter = accuracy.until(3)
    assert shorter.by_age == (0.9, 0.7, 0.25)
    assert (shorter.mean, shorter.worst) == pytest.approx((1.85 / 3, 0.25))


def test_the_right_flow_keeps_the_accuracy_that_copying_loses() -> None:
    source = blocks(8)
    accuracy = evaluate(network(), source, classes=2, interval=4)
    per_frame, propagated, copied = (accuracy[name] for name in ("per frame", "propagated", "copied"))
    assert propagated.by_age == pytest.approx(per_frame.by_age, abs=0.02)
    assert copied.mean < propagated.mean - 0.2
    assert copied.by_age[0] == propagated.by_age[0] == per_frame.by_age[0]
    assert len(copied.by_age) == 4
    assert copied.by_age[3] < copied.by_age[1]


@pytest.mark.parametrize("images", [1, 2, 3, 4, 5])
def test_the_accuracy_is_the_same_however_many_images_go_through_the_network_at_once(
    images: int,
) -> None:
    source = blocks(7)
    expected = evaluate(network(), source, classes=2, interval=5)
    height, width = source.labels.shape[1:]
    sizes: list[int] = []

    class Counting(Brightness):
        def features(self, image: Tensor) -> tuple[Tensor, ...]:
            sizes.append(len(image))
            return super().features(image)

    counting, pixels = DeepFeatureFlow(Counting(), KnownFlow()), images * height * width
    assert evaluate(counting, source, classes=2, interval=5, max_pixels=pixels) == expected
    assert max(sizes) == max(2, images)


def test_a_stream_is_run_from_key_frame_to_key_frame() -> None:
    seen = [WHITE, WHITE, BLACK, BLACK, WHITE, BLACK]
    frames = [(image, all_of(int(image.any()))) for image in seen]
    ticks: list[int] = []
    found = evaluate_stream(network(), frames, classes=2, interval=3, progress=lambda: ticks.append(1))
    # copied from the frames 0 and 3: frame 2 looks white, frame 4 black
    assert found["copied"].by_age == (1, 0.5, 0.5)
    assert found["copied"].worst == 0.5
    assert found["copied"].mean == pytest.approx(2 / 3)
    assert found["per frame"].by_age == (1, 1, 1)
    assert len(ticks) == 6


def test_in_a_stream_the_right_flow_keeps_the_accuracy_that_copying_loses() -> None:
    source = blocks(8)
    frames = zip(source.clip.frames, (Truth(labels=labels) for labels in source.labels), strict=True)
    found = evaluate_stream(network(), frames, classes=2, interval=4)
    assert found["propagated"].by_age == pytest.approx(found["per frame"].by_age, abs=0.02)
    assert found["copied"].worst < found["propagated"].worst - 0.2


def test_odd_sizes_are_measured_and_ignored_pixels_are_not() -> None:
    frame = np.zeros((17, 35, 3), np.uint8)
    frame[:, 16:] = 255
    labels = np.zeros((17, 35), np.uint8)
    labels[:, 16:] = 1
    labels[:, 8:24] = 255  # where the enlarged scores are between the two
    found = evaluate(network(), Snippets([([frame], Truth(labels))]), classes=2, interval=1, propagations=COPIED)
    assert found["copied"].mean == 1


class SquareDetector(DetectionNetwork):
    """Detects an object of 32 pixels around every white cell."""

    def __init__(self) -> None:
        regions = RegionOptions(anchor_ratios=(1.0,), anchor_scales=(2.0,), pooling=1, proposals=1)
        super().__init__(ResNetFeatures(ResNetOptions((1, 1, 1, 0), channels=2, width=0.1)), 2, regions=regions)
        self.maps = (FeatureMap(1, 16),)

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        return (functional.avg_pool2d(image.mean(1, keepdim=True), 16, ceil_mode=True) / 70,)

    def head(self, *features: Tensor) -> DetectionMaps:
        white = (features[0] > 0.5).float() * 40 - 20
        around = functional.max_pool2d(white, 3, 1, 1)
        nothing = torch.zeros_like(white).expand(-1, 4, -1, -1)
        return DetectionMaps(torch.cat((-white, white), 1), nothing, torch.cat((-around, around), 1), nothing)


def cell(column: int) -> tuple[Image, Truth]:
    """Return a frame with one white cell, and the object around it."""
    frame = np.zeros((80, 128, 3), np.uint8)
    frame[32:48, 16 * column : 16 * column + 16] = 255
    corners = np.array([[16 * column - 8, 24, 16 * column + 24, 56]], np.float32)
    return frame, Truth(boxes=Boxes(corners, np.array([1], np.int64)))


def test_detection_is_measured_like_segmentation() -> None:
    frames = [cell(column) for column in (2, 3, 4, 5)]
    source = Snippets([([image for image, _ in frames[n - 2 : n + 1]], frames[n][1]) for n in (2, 3)])
    detector = SquareDetector()
    found = evaluate(DeepFeatureFlow(detector, KnownFlow(detector.maps)), source, classes=2, interval=3)
    assert found["per frame"].by_age == pytest.approx((1, 1, 1))
    assert found["propagated"].by_age == pytest.approx((1, 1, 1))
    assert found["copied"].by_age == pytest.approx((1, 0, 0))  # a cell off: IoU 1/3
    assert found["copied"].metric == "mAP@0.5"
    assert found["copied"].per_class[0] is None


def test_detection_in_a_stream_is_measured() -> None:
    detector = SquareDetector()
    joined = DeepFeatureFlow(detector, KnownFlow(detector.maps))
    found = evaluate_stream(joined, [cell(column) for column in (2, 3, 4, 4)], classes=2, interval=2)
    assert found["propagated"].by_age == pytest.approx((1, 1))
    # of the two frames of age 1 the second one didn't move: at half of the recalls the precision is a half
    assert found["copied"].by_age == pytest.approx((1, 51 / 101 / 2))


def test_frames_without_truth_for_the_task_are_refused() -> None:
    _, boxes = cell(2)
    with pytest.raises(DataError, match="frames without pixel labels"):
        evaluate(network(), Snippets([([BLACK], boxes)]), classes=2, interval=1)
    detector = SquareDetector()
    with pytest.raises(DataError, match="frames without boxes"):
        evaluate(DeepFeatureFlow(detector, KnownFlow(detector.maps)), Snippets([([BLACK], all_of(0))]), 2, 1)


def test_evaluation_reports_every_labelled_frame() -> None:
    ticks: list[int] = []
    source = Squares(blocks(3))
    evaluate(network(), source, classes=2, interval=2, progress=lambda: ticks.append(1))
    assert len(ticks) == len(source) == 3
