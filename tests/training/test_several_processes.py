"""Two real processes that `torchrun` starts train the same weights as one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from keywarp.datasets.batches import BatchShare
from keywarp.networks import Task
from keywarp.training.process import TrainingProcess
from tests.training.torchrun import torchrun
from tests.training.torchrun_script import FRAMES, TASKS, fit


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the results of two processes."""
    folder = tmp_path_factory.mktemp("shared")
    torchrun("-m", "tests.training.torchrun_script", str(folder))
    return folder


def load(file: Path) -> Any:
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_train_the_same_as_one(task: Task, shared: Path, tmp_path: Path) -> None:
    fit(task, tmp_path, TrainingProcess())
    alone, first, second = load(tmp_path / f"{task}-0.pt"), load(shared / f"{task}-0.pt"), load(shared / f"{task}-1.pt")
    assert len(first["losses"]) == len(alone["losses"]) == 4
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    for name, weights in alone["weights"].items():
        torch.testing.assert_close(first["weights"][name], weights, rtol=1e-5, atol=1e-6)
        assert torch.equal(first["weights"][name], second["weights"][name]), name


@pytest.mark.parametrize("task", TASKS)
def test_batches_in_parts_train_the_same(task: Task, tmp_path: Path) -> None:
    for name, share in (("whole", BatchShare()), ("parts", BatchShare(parts=2))):
        fit(task, tmp_path / name, TrainingProcess(share=share))
    whole, parts = (load(tmp_path / name / f"{task}-0.pt") for name in ("whole", "parts"))
    assert parts["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    for name, weights in whole["weights"].items():
        torch.testing.assert_close(parts["weights"][name], weights, rtol=1e-5, atol=1e-6)


def test_processes_agree_on_what_live_batch_norms_saw(shared: Path) -> None:
    first, second = (load(shared / f"{FRAMES}-{rank}.pt")["weights"] for rank in (0, 1))
    kept = load(shared / f"{FRAMES}-0.state")["network"]
    assert any(name.endswith("running_var") for name in first)
    for name, weights in first.items():
        assert torch.equal(weights, second[name]), name
        assert torch.equal(weights, kept[name]), name


def test_only_the_first_process_reports_and_saves(shared: Path) -> None:
    for name in (*TASKS, FRAMES):
        assert (shared / f"{name}-0.state").exists()
        assert not (shared / f"{name}-1.state").exists()
        assert load(shared / f"{name}-1.pt")["losses"] == []
