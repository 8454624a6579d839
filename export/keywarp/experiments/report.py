"""Results of an experiment as files: JSON for programs, Markdown and a picture for people."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from keywarp.experiments.errors import ExperimentError
from keywarp.experiments.runner import write_json


@dataclass(frozen=True)
class Report:
    """The results of an experiment."""

    name: str
    title: str
    figures: Any  # content of the JSON file, or None if there are only pictures
    text: Sequence[str]  # paragraphs and tables in Markdown
    picture: Figure | None = None

    def write(self, folder: Path) -> list[Path]:
        """Write the files into a folder.

        Returns:
            The files' paths.

        Raises:
            ExperimentError: If a file can't be written.
        """
        try:
            return self._write(folder)
        except OSError as error:
            raise ExperimentError(f"can't write {error.filename}: {error.strerror}") from error

    def _write(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        if self.figures is not None:
            files.append(folder / f"{self.name}.json")
            write_json(self.figures, files[-1])
        text = [f"# {self.title}", *self.text]
        if self.picture is not None:
            files.append(folder / f"{self.name}.png")
            self.picture.savefig(files[-1], dpi=110, metadata={"Software": None})
            text.append(f"![{self.title}]({files[-1].name})")
        files.append(folder / f"{self.name}.md")
        files[-1].write_text("\n\n".join(text) + "\n")
        return files


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown. All columns but the first are right-aligned."""
    aligned = ["---"] + ["---:"] * (len(columns) - 1)
    lines = [list(columns), aligned, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """Describe this machine's processor."""
    name = platform.processor() or platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
