"""A training in a process of its own, for tests that kill it."""

import os
import signal
import time
from pathlib import Path

import torch

from keywarp.training import loop
from keywarp.training.compute import Compute
from keywarp.training.loop import Progress
from keywarp.training.recipe import Optimization
from tests.training.tiny import joint_stage, networks

STEPS, SAVE_EVERY = 20, 3
ADAM = Optimization(warm_up=0.3)


def fit(folder: Path, slow_from: int = STEPS, die_in_save: int | None = None) -> None:
    """Train deep feature flow; leaves `steps`, a line for each, and `weights.pt`.

    Args:
        folder: For everything.
        slow_from: After this step each takes a second more, in which the process can be killed.
        die_in_save: It is killed while it writes its state this time, counted from 0: then half of that is on the disk.
    """
    torch.set_num_threads(1)
    loop.SAVE_EVERY = SAVE_EVERY
    network, saves = networks(), iter(range(STEPS))

    def watch(stage: str, progress: Progress) -> None:  # noqa: ARG001
        with (folder / "steps").open("a") as file:
            file.write(f"{progress.step}\n")
        if slow_from <= progress.step < STEPS:
            time.sleep(1)

    def write_half(file: int) -> None:
        if next(saves) == die_in_save:
            os.truncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    loop.os.fsync = write_half  # type: ignore[attr-defined]  # the last thing before the state is in its place
    loop.train(joint_stage(network, STEPS, ADAM), folder / "state.pt", Compute(), watch)
    torch.save(network.state_dict(), folder / "weights.pt")
