import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from keywarp.datasets.batches import BatchShare
from keywarp.training.errors import DivergedError, ProgressError
from keywarp.training.loop import ParameterGroup, Progress, Stage, learning_rate_factor, train
from keywarp.training.process import TrainingProcess
from keywarp.training.recipe import Optimization

HERE = TrainingProcess()
PLAIN = Optimization(warm_up=0)


class StoppedError(Exception):
    """The user stopped the training."""


class Noise:
    """A source that always has the same batch for a step."""

    def batches(self, first: int, steps: int, share: BatchShare) -> Iterator[Tensor]:  # noqa: ARG002
        for step in range(first, steps):
            yield torch.randn(16, 2, generator=torch.Generator().manual_seed(step))


@dataclass
class Recorder:
    """Records the progress after each step, and stops the training after one of them."""

    stop_at: int | None = None

    def __post_init__(self) -> None:
        self.seen: list[Progress] = []

    def __call__(self, stage: str, progress: Progress) -> None:
        assert stage == "identity"
        self.seen.append(progress)
        if progress.step == self.stop_at:
            raise StoppedError


def identity(
    network: nn.Module, steps: int = 250, optimization: Optimization = PLAIN, settings: str = "", rate: float = 0.05
) -> Stage[Tensor]:
    """Return a stage that learns y = x."""

    def loss(x: Tensor) -> Tensor:
        difference: Tensor = network(x) - x
        return difference.square().mean()

    groups = [ParameterGroup("all", [*network.parameters()], rate)]
    return Stage("identity", network, groups, Noise(), loss, steps, optimization, settings)


def fit(stage: Stage[Tensor], state: Path, stop_at: int | None = None) -> list[Progress]:
    """Train, and return the progress after each step. The training is stopped after the step `stop_at`."""
    recorder = Recorder(stop_at)
    if stop_at is None:
        train(stage, state, HERE, recorder)
    else:
        with pytest.raises(StoppedError):
            train(stage, state, HERE, recorder)
    return recorder.seen


@pytest.mark.parametrize("algorithm", ["adamw", "sgd"])
def test_training_reduces_the_loss(algorithm: str, tmp_path: Path) -> None:
    stage = identity(nn.Linear(2, 2), optimization=Optimization.model_validate({"algorithm": algorithm}))
    seen = fit(stage, tmp_path / "s.pt")
    assert seen[-1].loss < 0.1 * seen[0].loss
    assert seen[-1].step == seen[-1].steps == 250
    assert seen[-1].mean_loss < seen[0].mean_loss


@pytest.mark.parametrize("algorithm", ["adamw", "sgd"])
def test_a_stopped_training_resumes_and_ends_as_if_it_had_not_been_stopped(algorithm: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    straight, stopped = nn.Linear(2, 2), nn.Linear(2, 2)
    stopped.load_state_dict(straight.state_dict())
    optimization = Optimization.model_validate({"algorithm": algorithm})
    expected = fit(identity(straight, optimization=optimization), tmp_path / "straight.pt")
    fit(identity(stopped, optimization=optimization), tmp_path / "stopped.pt", stop_at=120)
    nn.init.zeros_(stopped.weight)  # another process
    seen = fit(identity(stopped, optimization=optimization), tmp_path / "stopped.pt")
    assert seen[0].step == 101  # saved every hundred steps
    assert seen == expected[100:]
    assert torch.equal(stopped.weight, straight.weight)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    fit(identity(network, steps=30), tmp_path / "s.pt")
    assert fit(identity(other, steps=30), tmp_path / "s.pt") == []
    assert torch.equal(other.weight, network.weight)


def test_progress_of_another_network_is_refused(tmp_path: Path) -> None:
    fit(identity(nn.Linear(2, 2), steps=2), tmp_path / "s.pt")
    with pytest.raises(ProgressError, match=r"(?s)can't resume from .*s\.pt.*; delete it to start over"):
        fit(identity(nn.Linear(2, 2, bias=False), steps=2), tmp_path / "s.pt")


def test_progress_of_other_settings_is_refused(tmp_path: Path) -> None:
    fit(identity(nn.Linear(2, 2), steps=2, settings="a"), tmp_path / "s.pt")
    with pytest.raises(ProgressError, match=r"s\.pt holds progress with other settings.*; delete it to start over"):
        fit(identity(nn.Linear(2, 2), steps=2, settings="b"), tmp_path / "s.pt")


@pytest.mark.parametrize("damage", ["half", "empty", "text", "numbers", "folder", "parts"])
def test_damaged_progress_is_refused(damage: str, tmp_path: Path) -> None:
    state = tmp_path / "s.pt"
    fit(identity(nn.Linear(2, 2), steps=2), state)
    whole = state.read_bytes()
    match damage:
        case "half":
            state.write_bytes(whole[: len(whole) // 2])
        case "empty":
            state.write_bytes(b"")
        case "text":
            state.write_text("nothing that was ever saved")
        case "numbers":
            torch.save([1, 2], state)
        case "folder":
            state.unlink()
            state.mkdir()
        case "parts":
            torch.save({"settings": "", "network": {}}, state)
    with pytest.raises(ProgressError, match=r"(?s)s\.pt.*delete it to start over"):
        fit(identity(nn.Linear(2, 2), steps=2), state)


def test_a_loss_that_is_not_a_number_stops_the_training_before_it_is_saved(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    stage = identity(network, steps=100)

    [bad] = Noise().batches(41, 42, BatchShare())

    def loss(x: Tensor) -> Tensor:
        value = stage.loss(x)
        return value * math.nan if torch.equal(x, bad) else value

    with pytest.raises(DivergedError, match=r"identity: the loss is nan at step 42; lower the learning rates"):
        fit(replace(stage, loss=loss), tmp_path / "s.pt")
    assert not (tmp_path / "s.pt").exists()
    assert network.weight.isfinite().all()


def test_an_exploding_loss_is_reported_as_divergence(tmp_path: Path) -> None:
    wild = Optimization(algorithm="sgd", warm_up=0, clip_norm=0)
    with pytest.raises(DivergedError, match=r"the loss is (inf|nan) at step \d+"):
        fit(identity(nn.Linear(2, 2), optimization=wild, rate=100), tmp_path / "s.pt")


def test_gradients_are_clipped_by_group(tmp_path: Path) -> None:
    """A step of SGD without momentum is as long as the rate times the norm, for each group by itself."""
    network = nn.Linear(2, 2)
    weight, bias = network.parameters()
    before = [p.detach().clone() for p in network.parameters()]
    stage = replace(
        identity(network, steps=1),
        groups=[ParameterGroup("weight", [weight], 0.5), ParameterGroup("bias", [bias], 0.25)],
        loss=lambda x: 1e3 * (network(x) - x - 7).square().mean(),
        optimization=Optimization(algorithm="sgd", momentum=0, weight_decay=0, warm_up=0, clip_norm=0.1, drops=(1,)),
    )
    fit(stage, tmp_path / "s.pt")
    moved = [(p.detach() - b).norm().item() for p, b in zip(network.parameters(), before, strict=True)]
    assert moved == pytest.approx([0.05, 0.025], rel=1e-3)


def test_the_papers_schedule_falls_to_a_tenth_after_15_of_20_thousand_steps() -> None:
    segmentation = Optimization(algorithm="sgd", warm_up=0, drops=(0.75,))  # section 5.1
    assert [learning_rate_factor(step, 20_000, segmentation) for step in (0, 1, 14_999)] == [1, 1, 1]
    assert [learning_rate_factor(step, 20_000, segmentation) for step in (15_000, 19_999)] == pytest.approx([0.1, 0.1])
    detection = Optimization(algorithm="sgd", warm_up=0, drops=(2 / 3,))
    factors = [learning_rate_factor(step, 60_000, detection) for step in (39_999, 40_000)]
    assert factors == pytest.approx([1, 0.1])
    twice = Optimization(drops=(0.5, 0.75), warm_up=0)
    assert [learning_rate_factor(step, 8, twice) for step in range(8)] == pytest.approx(
        [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    warm = Optimization(warm_up=0.2)
    factors = [learning_rate_factor(step, 100, warm) for step in range(100)]
    assert factors[:20] == pytest.approx([(n + 1) / 20 for n in range(20)])
    assert factors[20] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert 0 < factors[99] < 0.001
    assert learning_rate_factor(0, 1, Optimization(warm_up=1)) == 1


def test_each_group_follows_the_schedule_at_its_own_rate(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    weight, bias = network.parameters()
    stage = replace(
        identity(network, steps=8, optimization=Optimization(warm_up=0.25, drops=(0.5,))),
        groups=[ParameterGroup("weight", [weight], 1.0), ParameterGroup("bias", [bias], 0.1)],
    )
    seen = fit(stage, tmp_path / "s.pt")
    factors = [0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]
    assert [p.rates["weight"] for p in seen] == pytest.approx(factors)
    assert [p.rates["bias"] for p in seen] == pytest.approx([0.1 * f for f in factors])


def test_frozen_parameters_are_not_trained(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    weight, bias = network.parameters()
    bias.requires_grad_(False)
    stage = replace(
        identity(network, steps=3),
        groups=[ParameterGroup("weight", [weight], 0.1), ParameterGroup("bias", [bias], 0.1)],
    )
    before = bias.clone()
    assert [*fit(stage, tmp_path / "s.pt")[0].rates] == ["weight"]
    assert torch.equal(bias, before)


def test_progress_is_saved_at_the_given_interval_and_at_the_end(tmp_path: Path) -> None:
    kept: list[int] = []

    def on_step(stage: str, progress: Progress) -> None:  # noqa: ARG001  # called before this step's state is saved
        if (tmp_path / "s.pt").exists():
            kept.append(torch.load(tmp_path / "s.pt", weights_only=True)["step"])
        assert progress.step < 5 or kept

    train(identity(nn.Linear(2, 2), steps=10), tmp_path / "s.pt", HERE, on_step, save_every=4)
    assert kept == [4, 4, 4, 4, 8, 8]
    assert torch.load(tmp_path / "s.pt", weights_only=True)["step"] == 10
