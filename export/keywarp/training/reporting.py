"""Reporting of training progress: to people while they wait, and to TensorBoard."""

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from torch.utils.tensorboard import SummaryWriter

from keywarp.training.loop import Progress

LOG_EVERY = 10  # steps


class Reporter(Protocol):
    """Shows the progress of long work."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps."""

    def step(self, done: int | None = None, note: str = "") -> None:
        """Count one step of the stage.

        Args:
            done: Steps done in all, or None to add one to the steps counted so far.
            note: A text to show next to the count.
        """


class SilentReporter:
    """Shows nothing; for the processes that aren't the leader."""

    def stage(self, name: str, total: int) -> None:
        """Do nothing."""

    def step(self, done: int | None = None, note: str = "") -> None:
        """Do nothing."""


class TrainingLog:
    """Writes losses and learning rates for TensorBoard, and passes each step to a reporter."""

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        """Open the log.

        Args:
            folder: The folder of TensorBoard's files; each stage gets a folder in it.
            reporter: Receives every step.
        """
        self._folder = folder
        self._stage = ""
        self.reporter = reporter
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, stage: str, progress: Progress) -> None:
        """Log one step."""
        self.reporter.step(progress.step, f"loss {progress.mean_loss:.3f}")
        if progress.step % LOG_EVERY and progress.step != progress.steps:
            return
        if self._writer is None or stage != self._stage:
            self._close()
            # A resumed stage purges the steps that a killed run logged after its last save. Stages have folders of
            # their own, so that this purges no other stage's steps.
            self._writer = SummaryWriter(str(self._folder / stage.replace(" ", "-")), purge_step=progress.step)
            self._stage = stage
        self._writer.add_scalar("loss", progress.loss, progress.step)
        self._writer.add_scalar("mean loss", progress.mean_loss, progress.step)
        for name, rate in progress.rates.items():
            self._writer.add_scalar(f"rate of {name}", rate, progress.step)
        self._writer.flush()  # before the loop saves its state, so that a resumed run misses no logged step

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
