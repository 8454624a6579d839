from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from keywarp.training.errors import ResumeError
from keywarp.training.loop import Progress, train


class StoppedError(Exception):
    """The user stopped it."""


def fit(network: nn.Linear, state: Path, steps: int = 250, stop_at: int | None = None) -> list[Progress]:
    """Learn y = x, reporting; deterministic, so that a resumed run can be compared."""
    seen = []

    def loss(step: int) -> Tensor:
        x = torch.randn(16, 2, generator=torch.Generator().manual_seed(step))
        difference: Tensor = network(x).float() - x
        return difference.square().mean()

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == stop_at:
            raise StoppedError

    train(network, [(network.parameters(), 0.05)], loss, steps, state, report)
    return seen


def test_training_reduces_the_loss(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    seen = fit(network, tmp_path / "s.pt")
    assert seen[-1].loss < 0.1 * seen[0].loss
    assert seen[-1].step == seen[-1].steps == 250


def test_a_stopped_training_goes_on_and_ends_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    straight, stopped = nn.Linear(2, 2), nn.Linear(2, 2)
    stopped.load_state_dict(straight.state_dict())
    fit(straight, tmp_path / "straight.pt")
    with pytest.raises(StoppedError):
        fit(stopped, tmp_path / "stopped.pt", stop_at=120)
    seen = fit(stopped, tmp_path / "stopped.pt")
    assert seen[0].step == 101  # saved every hundred steps
    torch.testing.assert_close(stopped.weight, straight.weight)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    fit(network, tmp_path / "s.pt")
    other = nn.Linear(2, 2)
    assert fit(other, tmp_path / "s.pt") == []
    assert torch.equal(other.weight, network.weight)


def test_progress_of_another_network_is_refused(tmp_path: Path) -> None:
    fit(nn.Linear(2, 2), tmp_path / "s.pt", steps=2)
    with pytest.raises(ResumeError, match="delete it to start anew"):
        fit(nn.Linear(2, 2, bias=False), tmp_path / "s.pt")
