"""Progress and accuracy on the terminal."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from keywarp.training.evaluation import Accuracy

LINE_EVERY = 50  # steps between two lines where stderr is no terminal


class ConsoleReporter:
    """A reporter on stderr: a progress bar for each stage on a terminal, else a line every few steps."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._name, self._done, self._total = "", 0, 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, name: str, total: int) -> None:
        """Start a new bar."""
        self._name, self._done, self._total = name, 0, total
        self._task = self._bars.add_task(name, total=total, note="")

    def step(self, done: int | None = None, note: str = "") -> None:
        """Move the bar."""
        before, self._done = self._done, self._done + 1 if done is None else done
        if self._task is not None:
            self._bars.update(self._task, completed=self._done, note=note)
        full = self._done // LINE_EVERY > before // LINE_EVERY or self._done == self._total
        if not self._console.is_terminal and full:
            self._console.print(f"{self._name}: {self._done}/{self._total} {note}", soft_wrap=True)


def print_accuracy(
    accuracy: Mapping[str, Mapping[str, Accuracy]], checkpoint: Path | None = None, as_json: bool = False
) -> None:
    """Print accuracies on stdout, as a table or as JSON.

    Args:
        accuracy: Accuracy by data set, then by propagation.
        checkpoint: The checkpoint's path, to be printed too.
        as_json: Whether to print JSON.
    """
    if as_json:
        figures = {source: {way: asdict(value) for way, value in ways.items()} for source, ways in accuracy.items()}
        path = {"checkpoint": str(checkpoint)} if checkpoint else {}
        print(json.dumps({**path, "accuracy": figures}, indent=2))
        return
    table = Table("data", "features", "accuracy", "mean over key ages", "worst key age")
    for source, ways in accuracy.items():
        for way, value in ways.items():
            table.add_row(source, way, value.metric, f"{100 * value.mean:.1f} %", f"{100 * value.worst:.1f} %")
    Console().print(table)
    if checkpoint:
        print(f"Checkpoint: {checkpoint}")
