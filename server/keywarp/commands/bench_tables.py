"""What the benchmarks print."""

import json
from collections.abc import Iterable
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from keywarp.engines import Backend, Bundle


def describe_setting(bundle: Bundle, backend: Backend, width: int, height: int, interval: int) -> str:
    """Describe what was measured, in one line."""
    model = f"model {bundle.name} {bundle.manifest.version}"
    runs_on = f"{backend.name} {backend.precision} on {backend.device}"
    return f"{width}x{height}, interval {interval}, batch 1, {model}, {runs_on}"


def print_json(figures: dict[str, Any]) -> None:
    """Print figures as JSON."""
    typer.echo(json.dumps(figures, indent=2))


def print_table(title: str, rows: Iterable[tuple[str, str]], setting: str) -> None:
    """Print figures as a table of two columns, with what was measured below."""
    table = Table(title=f"keywarp bench {title}", title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(setting, style="dim")
