from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from keywarp.datasets import (
    IGNORE,
    Augmentation,
    ClipFlowSource,
    DataError,
    FlowBatch,
    FlowDataset,
    PairBatch,
    SyntheticMotion,
)
from keywarp.datasets.batches import BatchShare
from keywarp.networks import (
    DeepFeatureFlow,
    FeatureMap,
    FlowNetInception,
    FlowPrediction,
    FlowPyramid,
    RecognitionNetwork,
    SplitNetwork,
    Task,
)
from keywarp.training.flow import (
    FlowLoss,
    PyramidLoss,
    end_point_error,
    in_cells,
    matching_loss,
    measure_flow,
    object_weights,
)
from keywarp.training.images import normalised
from keywarp.training.joint import FrameLoss, PairLoss, TaskLoss, parameter_groups, segmentation_loss, upsample
from tests.datasets.synthetic import moving_square
from tests.training.tiny import DFF, JOINT, networks, pairs

ALONE = BatchShare()
PARTS = ("current", "key", "propagated", "labels")


def synthetic_batch(height: int = 32, width: int = 32, batch: int = 2) -> FlowBatch:
    """Return a batch of half-size images with synthetic motion."""
    clips = ClipFlowSource([moving_square()], Augmentation(height, width, (0.5, 0.5)), 1.0, SyntheticMotion())
    [drawn] = FlowDataset(clips, None, batch, seed=0).batches(0, 1, ALONE)
    return drawn


def select(batch: PairBatch, *places: int) -> PairBatch:
    """Return some samples of a batch."""
    chosen = {name: getattr(batch, name)[list(places)] for name in PARTS}
    numbers, boxes = (tuple(x[n] for n in places) for x in (batch.numbers, batch.boxes))
    return replace(batch, numbers=numbers, boxes=boxes, **chosen)  # type: ignore[arg-type]


# --- flow


def test_end_point_error_is_a_distance() -> None:
    flow = torch.zeros(1, 2, 3, 4)
    target = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand_as(flow)
    assert abs(float(end_point_error(flow, target)) - 5) < 1e-3


def test_a_few_steps_reduce_the_flow_loss() -> None:
    torch.manual_seed(0)
    network, batch = FlowNetInception([FeatureMap(4, 16)], share=0.25), synthetic_batch()
    loss = FlowLoss(network)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.9 * losses[0]


def test_an_untrained_network_is_as_good_as_no_motion() -> None:
    torch.manual_seed(0)
    error = measure_flow(FlowNetInception([FeatureMap(4, 16)]), synthetic_batch(32, 48))
    assert abs(error["network"] - error["zero"]) < 0.2 * error["zero"]


class PerfectFlow(FlowNetInception):
    """Predicts at every level that everything moves by 4 half-size pixels, which is the truth."""

    def forward_with_pyramid(self, current: Tensor, key: Tensor) -> tuple[FlowPrediction, list[Tensor]]:  # noqa: ARG002
        n, _, height, width = current.shape
        cells = self.stride // 2  # half-size pixels along a cell
        flow = torch.full((n, 2, height // cells, width // cells), 4 / cells)
        pyramid = [torch.full((n, 2, height // s, width // s), 4 / 20) for s in (32, 16, 8, 4)]
        return FlowPrediction(flow, ()), pyramid


@pytest.mark.parametrize("stride", [8, 16])
def test_a_perfect_flow_costs_nothing_at_any_stride(stride: int) -> None:
    batch = synthetic_batch(64, 64, batch=1)
    loss = FlowLoss(PerfectFlow([FeatureMap(2, stride)]))
    assert float(loss(replace(batch, flow=torch.full_like(batch.flow, 4)))) < 0.01
    assert float(loss(replace(batch, flow=torch.full_like(batch.flow, -4)))) > 0.5


@pytest.mark.parametrize(("stride", "cells"), [(8, 1.0), (16, 0.5)])
def test_flow_is_counted_in_cells_of_the_full_image(stride: int, cells: float) -> None:
    flow = torch.full((1, 32, 48, 2), 4.0)  # half-size pixels
    assert (in_cells(flow, FlowNetInception([FeatureMap(2, stride)])) == cells).all()


def test_matches_at_the_true_offset_cost_least() -> None:
    offset = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    costs = []
    for place in range(9):  # of a window of 3 x 3 cells, row by row
        scores = torch.zeros(1, 9, 3, 4)
        scores[:, place] = 5
        costs.append(float(matching_loss(scores, offset).mean()))
    assert min(range(9), key=costs.__getitem__) == 2  # dx = 1, dy = -1
    assert float(matching_loss(torch.randn(1, 9, 3, 4), offset + 3).abs().max()) == 0  # outside of the window


def test_a_small_object_weighs_more_than_the_background() -> None:
    flow = torch.zeros(1, 2, 32, 48)
    flow[:, 0] = torch.linspace(-8, 8, 48)  # a zoom
    flow[:, :, 12:16, 20:23] = 25
    weights = object_weights(flow)[0]
    assert (weights[12:16, 20:23] > 1).all()
    assert (weights[20:, :10] == 1).all()


def test_a_few_steps_reduce_the_pyramids_loss() -> None:
    torch.manual_seed(0)
    network, batch = FlowPyramid([FeatureMap(4, 8)], share=0.5), synthetic_batch(64, 64)
    loss = PyramidLoss(network)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.9 * losses[0]


# --- tasks


@dataclass
class Inputs:
    """The inputs of a network."""

    current: Tensor
    key: Tensor
    propagated: Tensor


class RecordingFlow(DeepFeatureFlow[Tensor]):
    """Records the inputs of its last forward pass."""

    inputs: Inputs

    def forward(self, current: Tensor, key: Tensor, propagated: Tensor) -> Tensor:
        self.inputs = Inputs(current, key, propagated)
        return super().forward(current, key, propagated)


def test_pairs_go_through_key_features_and_motion_unless_they_are_one_frame() -> None:
    plain = networks()
    network = RecordingFlow(plain.recognition, plain.flow)
    [batch] = pairs(batch=6).batches(0, 1, ALONE)
    PairLoss(network, TaskLoss(network.recognition))(batch)
    assert torch.equal(network.inputs.current, normalised(batch.current))
    assert torch.equal(network.inputs.key, normalised(batch.key))
    assert network.inputs.propagated.tolist() == batch.propagated.tolist()
    assert set(batch.propagated.tolist()) == {False, True}


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_of_single_frames_both_losses_are_the_same(task: Task) -> None:
    network = networks(task)
    [batch] = pairs(max_gap=0).batches(0, 1, ALONE)
    learnt = TaskLoss(network.recognition, seed=5)
    torch.testing.assert_close(PairLoss(network, learnt)(batch), FrameLoss(network.recognition, learnt)(batch))


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_a_batchs_loss_is_the_mean_of_its_samples(task: Task) -> None:
    network = networks(task)
    loss = PairLoss(network, TaskLoss(network.recognition))
    [batch] = pairs(batch=4).batches(3, 4, ALONE)
    with torch.inference_mode():
        whole = loss(batch)
        single = [loss(select(batch, n)) for n in range(4)]
        halves = [loss(select(batch, 2, 0)), loss(select(batch, 3, 1))]
    assert float(whole) == pytest.approx(float(torch.stack(single).mean()), rel=1e-4)
    assert float(whole) == pytest.approx(float(torch.stack(halves).mean()), rel=1e-4)


def test_what_a_detector_learns_from_depends_on_the_seed_and_the_samples_number() -> None:
    network = networks("detection")
    [batch] = pairs(batch=2).batches(0, 1, ALONE)
    many = replace(batch, current=batch.current.repeat(1, 4, 4, 1), key=batch.key.repeat(1, 4, 4, 1))  # anchors to draw

    def loss(seed: int, numbers: tuple[int, ...]) -> float:
        task = TaskLoss(network.recognition, seed)
        with torch.inference_mode():
            return float(PairLoss(network, task)(replace(many, numbers=numbers)))

    assert loss(1, (0, 1)) == loss(1, (0, 1))
    assert len({loss(1, (0, 1)), loss(2, (0, 1)), loss(1, (2, 3))}) == 3


def test_segmentation_is_learnt_from_each_images_known_pixels_alike() -> None:
    scores = torch.zeros(2, 2, 2, 3)
    scores[1, 1] = 3  # the second image is all of class 1
    labels = torch.zeros(2, 20, 40, dtype=torch.int64)
    labels[1, 1:] = IGNORE
    costs = -torch.log_softmax(torch.tensor([0.0, 3.0]), 0)[0], -torch.log(torch.tensor(0.5))
    assert float(segmentation_loss(scores, labels)) == pytest.approx(float(sum(costs)) / 2, rel=1e-5)
    labels[:] = IGNORE
    assert float(segmentation_loss(scores, labels)) == 0


@pytest.mark.parametrize(
    ("task", "lack", "message"),
    [("segmentation", {"labels": None}, "no pixel labels"), ("detection", {"boxes": ()}, "no boxes")],
)
def test_data_without_labels_for_the_task_are_refused(task: Task, lack: dict[str, Any], message: str) -> None:
    network = networks(task)
    [batch] = pairs().batches(0, 1, ALONE)
    with pytest.raises(DataError, match=message):
        FrameLoss(network.recognition, TaskLoss(network.recognition))(replace(batch, **lack))


def test_a_few_steps_of_joint_training_reduce_its_loss_and_leave_frozen_stages_alone() -> None:
    network = networks()
    recognition = network.recognition
    assert isinstance(recognition, SplitNetwork)
    backbone = recognition.backbone
    frozen = (backbone.conv1, backbone.layer1)
    before = [p.clone() for stage in frozen for p in stage.parameters()]
    moving = next(backbone.layer2.parameters()).clone()
    rates = parameter_groups(network, JOINT.model_copy(update={"frozen_stages": 2}), DFF)
    optimizer = torch.optim.AdamW([{"params": rate.parameters, "lr": rate.rate} for rate in rates])
    loss = PairLoss(network, TaskLoss(recognition))
    [batch] = pairs().batches(0, 1, ALONE)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.9 * losses[0]
    after = [p for stage in frozen for p in stage.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert not torch.equal(next(backbone.layer2.parameters()), moving)


def test_new_layers_have_a_rate_of_their_own() -> None:
    network = networks()
    rates = {rate.name: rate for rate in parameter_groups(network, JOINT, DFF)}
    assert [rate.rate for rate in rates.values()] == [1e-3, 1e-3, 1e-2]
    assert isinstance(network.recognition, SplitNetwork)
    new = {id(p) for p in network.recognition.backbone.reduction.parameters()}
    new |= {id(p) for p in network.recognition.task_head.parameters()}
    assert {id(p) for p in rates["new"].parameters} == new
    assert {id(p) for p in rates["flow"].parameters} == {id(p) for p in network.flow.parameters()}
    trained = [id(p) for rate in rates.values() for p in rate.parameters]
    assert len(trained) == len(set(trained))
    assert set(trained) >= {id(p) for p in network.parameters() if p.requires_grad}


def test_a_network_of_ones_own_has_no_stages_to_freeze() -> None:
    class Own(RecognitionNetwork[Tensor]):
        task: Task = "segmentation"
        maps = (FeatureMap(2, 16),)

        def features(self, image: Tensor) -> tuple[Tensor, ...]:
            return (image,)

        def head(self, *features: Tensor) -> Tensor:
            return features[0]

        def predict(self, raw: Tensor) -> tuple[Tensor, ...]:
            return (raw,)

    with pytest.raises(TypeError, match="Own has no stages"):
        parameter_groups(DeepFeatureFlow(Own(), FlowNetInception(Own.maps)), JOINT, DFF)


def test_upsampling_keeps_cell_centres() -> None:
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 2, 4)
    large = upsample(ramp)
    assert large.shape == (1, 1, 32, 64)
    # the centre of cell 1 lies between pixels 23 and 24
    assert abs(float(large[0, 0, 16, 23:25].mean()) - 1) < 1e-5


def test_frames_are_normalised_without_copying_their_channels_apart() -> None:
    frames = torch.from_numpy(np.full((1, 4, 5, 3), 124, np.uint8))
    image = normalised(frames)
    assert image.shape == (1, 3, 4, 5)
    assert image.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(image[0, :, 0, 0], 124 - torch.tensor([123.15, 115.90, 103.06]))
