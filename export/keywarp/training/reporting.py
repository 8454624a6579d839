"""Where progress is told: to people while they wait, and to TensorBoard for later."""

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from torch.utils.tensorboard import SummaryWriter

from keywarp.training.loop import Progress

LOG_EVERY = 10  # steps


class Reporter(Protocol):
    """Where progress is shown."""

    def stage(self, name: str, total: int) -> None:
        """A stage of `total` steps begins."""

    def step(self, done: int | None = None, note: str = "") -> None:
        """One more step of it is done; `done`: so many in all, when some had been done before."""


class SilentReporter:
    """Shows nothing: the processes that don't lead."""

    def stage(self, name: str, total: int) -> None:
        """Nothing."""

    def step(self, done: int | None = None, note: str = "") -> None:
        """Nothing."""


class Journal:
    """Writes losses and learning rates for TensorBoard, and tells a reporter."""

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        """Open it.

        Args:
            folder: For TensorBoard's files, a folder in it for each stage.
            reporter: Told about every step.
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
        """A step is done."""
        self.reporter.step(progress.step, f"loss {progress.mean_loss:.3f}")
        if progress.step % LOG_EVERY and progress.step != progress.steps:
            return
        if self._writer is None or stage != self._stage:
            self._close()
            # What a killed run has written of the steps from here on is void; hence stages can't share a folder.
            self._writer = SummaryWriter(str(self._folder / stage.replace(" ", "-")), purge_step=progress.step)
            self._stage = stage
        self._writer.add_scalar("loss", progress.loss, progress.step)
        self._writer.add_scalar("mean loss", progress.mean_loss, progress.step)
        for name, rate in progress.rates.items():
            self._writer.add_scalar(f"rate of {name}", rate, progress.step)
        self._writer.flush()  # before the loop saves: no step that is gone on from is missing

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
