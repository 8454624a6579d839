"""Training is killed, as no handler could see it, and goes on as if it hadn't been."""

import multiprocessing
import signal
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import torch

from tests.training.fitting import SAVE_EVERY, STEPS, fit

TIMEOUT = 120  # seconds


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Makes processes in which what training needs is imported, and nothing else has happened."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keywarp.training.joint", "keywarp.training.loop"])
    return context


def start(context: ForkServerContext, folder: Path, **how: int) -> ForkServerProcess:
    folder.mkdir(exist_ok=True)
    process = context.Process(target=fit, args=(folder,), kwargs=how, daemon=True)
    process.start()
    return process


def steps(folder: Path) -> list[int]:
    """The steps that were taken, of all runs."""
    file = folder / "steps"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_a_killed_training_goes_on_to_the_very_same_weights(processes: ForkServerContext, tmp_path: Path) -> None:
    folder, deadline = tmp_path / "killed", time.monotonic() + TIMEOUT
    straight, killed = start(processes, tmp_path / "straight"), start(processes, folder, slow_from=8)
    while len(steps(folder)) < 8 and killed.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.kill()
    killed.join(TIMEOUT)
    assert killed.exitcode == -signal.SIGKILL
    first = steps(folder)
    assert 8 <= len(first) < STEPS
    kept = torch.load(folder / "state.pt", weights_only=True)["step"]
    assert kept in (first[-1] // SAVE_EVERY * SAVE_EVERY, (first[-1] // SAVE_EVERY - 1) * SAVE_EVERY)

    second = start(processes, folder, die_in_save=1)
    second.join(TIMEOUT)
    assert second.exitcode == -signal.SIGKILL
    assert steps(folder)[len(first) :] == list(range(kept + 1, kept + 2 * SAVE_EVERY + 1))
    assert (folder / "state.partial").exists()
    assert torch.load(folder / "state.pt", weights_only=True)["step"] == kept + SAVE_EVERY

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
