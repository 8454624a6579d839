"""`keywarp train`."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.", dir_okay=False)],
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for packages, labels and progress (default: .cache/keywarp/<recipe's name>)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the accuracy as JSON.")] = False,
) -> None:
    """Train a model on this machine's CPU, as a recipe says; stop it at any time, it goes on where it was.

    Example: keywarp train export/keywarp/training/recipes/street.toml
    """
    try:
        from keywarp.training.console import ConsoleReporter, print_accuracy
        from keywarp.training.pipeline import run
    except ImportError as error:
        typer.echo(f"Training needs {error.name}: pip install 'keywarp[train]'", err=True)
        raise typer.Exit(1) from error
    from keywarp.datasets import DataError
    from keywarp.networks import WeightsError
    from keywarp.training.errors import TrainingError

    work = work or Path(".cache/keywarp") / recipe.stem
    try:
        with ConsoleReporter() as reporter:
            checkpoint, accuracy = run(recipe, work, reporter)
    except (DataError, TrainingError, WeightsError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    print_accuracy(accuracy, checkpoint, as_json)
