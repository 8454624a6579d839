"""What the processes that `torchrun` starts run, for the tests of sharing: python -m tests.training.sharing FOLDER."""

import sys
from pathlib import Path

import torch

from keywarp.networks import Task
from keywarp.training.compute import Compute, open_compute
from keywarp.training.loop import Progress, train
from tests.training.tiny import frame_stage, joint_stage, networks

TASKS: tuple[Task, Task] = ("segmentation", "detection")
FRAMES = "frames"


def fit(name: str, folder: Path, compute: Compute) -> None:
    """Train; each process leaves its losses and weights, and its state in a file of its own."""
    torch.set_num_threads(1)
    training = (
        frame_stage() if name == FRAMES else joint_stage(networks("detection" if name == "detection" else TASKS[0]))
    )
    losses: list[float] = []

    def watch(stage: str, progress: Progress) -> None:  # noqa: ARG001
        losses.append(progress.loss)

    rank = compute.share.rank
    train(training, folder / f"{name}-{rank}.state", compute, watch)
    torch.save({"losses": losses, "weights": training.network.state_dict()}, folder / f"{name}-{rank}.pt")


if __name__ == "__main__":
    with open_compute("cpu", "fp32") as shared:
        for trained in (*TASKS, FRAMES):
            fit(trained, Path(sys.argv[1]), shared)
