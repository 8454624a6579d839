"""The script that `torchrun` starts: python -m tests.training.torchrun_script FOLDER."""

import sys
from pathlib import Path

import torch

from keywarp.networks import Task
from keywarp.training.loop import Progress, train
from keywarp.training.process import TrainingProcess, open_process
from tests.training.tiny import frame_stage, joint_stage, networks

TASKS: tuple[Task, Task] = ("segmentation", "detection")
FRAMES = "frames"


def fit(name: str, folder: Path, process: TrainingProcess) -> None:
    """Train, and write the losses and weights to a file of this process, and its progress to another."""
    torch.set_num_threads(1)
    training = (
        frame_stage() if name == FRAMES else joint_stage(networks("detection" if name == "detection" else TASKS[0]))
    )
    losses: list[float] = []

    def watch(stage: str, progress: Progress) -> None:  # noqa: ARG001
        losses.append(progress.loss)

    rank = process.share.rank
    train(training, folder / f"{name}-{rank}.state", process, watch)
    torch.save({"losses": losses, "weights": training.network.state_dict()}, folder / f"{name}-{rank}.pt")


if __name__ == "__main__":
    with open_process("cpu", "fp32") as shared:
        for trained in (*TASKS, FRAMES):
            fit(trained, Path(sys.argv[1]), shared)
