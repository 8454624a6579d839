"""A training that is killed by SIGKILL, which no handler can catch, resumes and ends as if it had never been killed."""

import multiprocessing
import signal
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import torch

from tests.training.killable import SAVE_EVERY, STEPS, fit

TIMEOUT = 120  # seconds


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Return a context that starts processes in which only the modules for training have been imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keywarp.training.joint", "keywarp.training.loop"])
    return context


def start(context: ForkServerContext, folder: Path, **options: object) -> ForkServerProcess:
    folder.mkdir(exist_ok=True)
    process = context.Process(target=fit, args=(folder,), kwargs=options, daemon=True)
    process.start()
    return process


def steps(folder: Path) -> list[int]:
    """Return the numbers of the steps that all runs in a folder have done."""
    return [int(line) for line in (folder / "steps").read_text().split()]


def test_a_killed_training_resumes_and_ends_with_exactly_the_same_weights(
    processes: ForkServerContext, tmp_path: Path
) -> None:
    folder, paused = tmp_path / "killed", processes.Event()
    straight, killed = start(processes, tmp_path / "straight"), start(processes, folder, pause_at=8, paused=paused)
    assert paused.wait(TIMEOUT)
    killed.kill()
    killed.join(TIMEOUT)
    assert killed.exitcode == -signal.SIGKILL
    assert steps(folder) == list(range(1, 9))
    assert torch.load(folder / "state.pt", weights_only=True)["step"] == 2 * SAVE_EVERY

    second = start(processes, folder, die_in_save=1)
    second.join(TIMEOUT)
    assert second.exitcode == -signal.SIGKILL
    assert steps(folder)[8:] == list(range(2 * SAVE_EVERY + 1, 4 * SAVE_EVERY + 1))
    assert (folder / "state.partial").exists()
    assert torch.load(folder / "state.pt", weights_only=True)["step"] == 3 * SAVE_EVERY

    last = start(processes, folder)
    for process in (last, straight):
        process.join(TIMEOUT)
        assert process.exitcode == 0
    assert steps(folder)[-1] == STEPS
    assert not (folder / "state.partial").exists()
    expected, found = (torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("straight", "killed"))
    assert expected.keys() == found.keys()
    for name, weights in expected.items():
        assert torch.equal(found[name], weights), name
