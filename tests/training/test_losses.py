from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from keywarp.datasets import Augmentation, MadeMotion, PairSampler
from keywarp.networks import FeatureMap, FlowNetInception, Motion, NetworkOptions, SplitNetwork, build_network
from keywarp.training.flow import end_point_error, flow_loss, measure_flow
from keywarp.training.joint import enlarged, joint_loss, joint_rates
from keywarp.training.recipe import AugmentationRecipe, JointTraining
from tests.datasets.clips import moving_square

JOINT = JointTraining(
    steps=1,
    batch=2,
    features_rate=1e-4,
    flow_rate=1e-3,
    new_rate=1e-2,
    weight_decay=0,
    frozen_stages=2,
    crop=AugmentationRecipe(height=48, width=64, zoom=(1, 1)),
)


def test_end_point_error_is_a_distance() -> None:
    flow = torch.zeros(1, 2, 3, 4)
    target = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand_as(flow)
    assert abs(float(end_point_error(flow, target)) - 5) < 1e-3


def test_a_few_steps_reduce_the_flow_loss() -> None:
    torch.manual_seed(0)
    network = FlowNetInception([FeatureMap(4, 16)])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        sampler = PairSampler([moving_square()], Augmentation(32, 32, (0.5, 0.5)), seed=0)
        loss = flow_loss(network, sampler, step=0, batch=2, made_share=0.5)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_an_untrained_network_is_as_good_as_no_motion() -> None:
    torch.manual_seed(0)
    pairs = PairSampler([moving_square()], Augmentation(32, 48, (0.5, 0.5)), seed=0).flows(0, 2, 1, MadeMotion())
    error = measure_flow(FlowNetInception([FeatureMap(4, 16)]), pairs)
    assert abs(error["network"] - error["zero"]) < 0.2 * error["zero"]


def test_a_few_steps_of_joint_training_reduce_its_loss_and_leave_frozen_stages_alone() -> None:
    torch.manual_seed(0)
    network = build_network(NetworkOptions(classes=2, blocks=(1, 1, 1, 0), channels=8, flow="flownet_inception"))
    recognition = network.recognition
    assert isinstance(recognition, SplitNetwork)
    frozen = recognition.backbone.bottlenecks()[0].conv1.weight.clone()
    optimizer = torch.optim.AdamW([{"params": list(p), "lr": rate} for p, rate in joint_rates(network, JOINT)])
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = joint_loss(
            network, PairSampler([moving_square()], Augmentation(48, 64, (1, 1)), seed=0), step=0, batch=2
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert torch.equal(recognition.backbone.bottlenecks()[0].conv1.weight, frozen)


def test_enlarging_keeps_cell_centres() -> None:
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 2, 4)
    large = enlarged(ramp)
    assert large.shape == (1, 1, 32, 64)
    # the centre of cell 1 lies between pixels 23 and 24
    assert abs(float(large[0, 0, 16, 23:25].mean()) - 1) < 1e-5


class PerfectFlow(FlowNetInception):
    """Says at every level what the truth is: everything moves by 4 half-size pixels."""

    def with_pyramid(self, current: Tensor, key: Tensor) -> tuple[Motion, list[Tensor]]:  # noqa: ARG002
        n, _, height, width = current.shape
        cells = self.stride // 2  # half-size pixels along a cell
        flow = torch.full((n, 2, height // cells, width // cells), 4 / cells)
        pyramid = [torch.full((n, 2, height // s, width // s), 4 / 20) for s in (32, 16, 8, 4)]
        return Motion(flow, ()), pyramid


@pytest.mark.parametrize("stride", [8, 16])
def test_a_perfect_flow_costs_nothing_at_any_stride(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = PairSampler([moving_square()], Augmentation(64, 64, (0.5, 0.5)), seed=0)
    pairs = sampler.flows(0, 1, 1, MadeMotion())
    known = replace(pairs, flow=np.full_like(pairs.flow, 4))
    monkeypatch.setattr(sampler, "flows", lambda *_: known)
    loss = flow_loss(PerfectFlow([FeatureMap(2, stride)]), sampler, step=0, batch=1, made_share=1)
    assert float(loss) < 0.01
