"""A training that runs in a separate process, for tests that kill it."""

import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from keywarp.training.loop import Progress, train
from keywarp.training.process import TrainingProcess
from keywarp.training.recipe import Optimization
from tests.training.tiny import joint_stage, networks

STEPS, SAVE_EVERY = 20, 3
ADAM = Optimization(warm_up=0.3)


def fit(folder: Path, pause_at: int | None = None, paused: Event | None = None, die_in_save: int | None = None) -> None:
    """Train deep feature flow, and write `weights.pt` and the file `steps`, which has a line for each step.

    Args:
        folder: The folder for all files.
        pause_at: The step after which the process sets `paused` and waits until it is killed.
        paused: The event to set.
        die_in_save: The number of the save, counted from 0, in which the process kills itself after writing half of the
            state.
    """
    torch.set_num_threads(1)
    network, saves = networks(), iter(range(STEPS))

    def on_step(stage: str, progress: Progress) -> None:  # noqa: ARG001
        with (folder / "steps").open("a") as file:
            file.write(f"{progress.step}\n")
        if progress.step == pause_at:
            assert paused is not None
            paused.set()
            signal.pause()

    def write_half(file: int) -> None:
        if next(saves) == die_in_save:
            os.truncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = write_half  # type: ignore[assignment]  # the last call before the state replaces the older one
    train(joint_stage(network, STEPS, ADAM), folder / "state.pt", TrainingProcess(), on_step, SAVE_EVERY)
    torch.save(network.state_dict(), folder / "weights.pt")
