"""What checks leave behind, and the tables that are made of it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.gpu.checks import BY_NAME, CHECKS

Status = Literal["passed", "failed", "skipped", "out of time", "crashed"]


@dataclass(frozen=True)
class Outcome:
    """What one check found."""

    check: str
    status: Status
    seconds: float
    reason: str = ""  # why it didn't pass
    figures: dict[str, Any] = field(default_factory=dict)
    log: tuple[str, ...] = ()  # its last lines, if it didn't pass
    dry: bool = False

    def save(self, folder: Path) -> None:
        """Write it to its file in a folder."""
        (folder / f"{self.check}.json").write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, file: Path) -> "Outcome":
        """Read it from its file.

        Raises:
            OSError: If the file can't be read.
            ValueError: If it is damaged.
        """
        try:
            values = json.loads(file.read_text("utf-8"))
            return cls(**{**values, "log": tuple(values["log"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} isn't the outcome of a check: {error}") from error


def load_outcomes(folder: Path) -> list[Outcome]:
    """Return the outcomes in a folder, in the order of the checks."""
    files = (folder / f"{check.name}.json" for check in CHECKS)
    return [Outcome.load(file) for file in files if file.is_file()]


def table(outcomes: Iterable[Outcome]) -> str:
    """Return a table in Markdown, a row for each check; those that never ran are marked."""
    found = {outcome.check: outcome for outcome in outcomes}
    rows = ["| check | outcome | seconds | figures |", "| --- | --- | ---: | --- |"]
    for check in CHECKS:
        outcome = found.get(check.name)
        if outcome is None:
            rows.append(f"| `{check.name}`: {check.title} | **never ran** | | |")
            continue
        text = outcome.figures.get("summary", "") if outcome.status == "passed" else outcome.reason
        text = " ".join(str(text).split()).replace("|", "\\|")[:300]
        status = outcome.status if outcome.status == "passed" else f"**{outcome.status}**"
        rows.append(f"| `{check.name}`: {check.title} | {status} | {outcome.seconds:.0f} | {text} |")
    return "\n".join(rows)


def cards_table(cards: Sequence[tuple[str, Sequence[Outcome]]]) -> str:
    """Return the table of what ran where: a row for each check, and a column for each card.

    Args:
        cards: The cards' names, and what ran on each.
    """
    if not cards:
        return "\n".join(
            [
                "| check | any card |",
                "| --- | --- |",
                *(f"| `{check.name}`: {check.title} | **never ran** |" for check in CHECKS),
            ]
        )
    names = [name for name, _ in cards]
    rows = [f"| check | {' | '.join(names)} |", f"| --- |{' --- |' * len(cards)}"]
    for check in CHECKS:
        cells = []
        for _, outcomes in cards:
            outcome = next((o for o in outcomes if o.check == check.name), None)
            cells.append("**never ran**" if outcome is None else _cell(outcome))
        rows.append(f"| `{check.name}`: {BY_NAME[check.name].title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(outcome: Outcome) -> str:
    text = (
        str(outcome.figures.get("summary", ""))
        if outcome.status == "passed"
        else f"**{outcome.status}**: {outcome.reason}"
    )
    return " ".join(text.split()).replace("|", "\\|")[:200]
