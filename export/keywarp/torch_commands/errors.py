"""Turning failures into `CommandError`, which `keywarp` prints as one sentence before it exits with status 1."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from keywarp.cli.errors import CommandError
from keywarp.saving import SavingWarning

INSTALL_TRAIN = "install the extra `train` (README, Install)"
INSTALL_TRAIN_AND_CPU = "install the extras `train` and `cpu` (README, Install)"


@contextmanager
def importing(task: str, remedy: str = INSTALL_TRAIN) -> Iterator[None]:
    """Report a package that can't be imported.

    Args:
        task: The first words of the error's text, such as "training".
        remedy: The last words of the error's text: how to install the packages.

    Raises:
        CommandError: If an import fails. The text names the package.
    """
    try:
        yield
    except ImportError as error:
        raise CommandError(f"{task} needs {error.name}: {remedy}") from error


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Report every error of adaptation, data, networks, training, experiments, export and engines by its own text.

    Raises:
        CommandError: If one of them is raised.
    """
    from keywarp.adaptation import AdaptationError
    from keywarp.datasets import DataError
    from keywarp.engines import EngineError
    from keywarp.experiments.errors import ExperimentError
    from keywarp.export import ExportError
    from keywarp.networks import CheckpointError, WeightsError
    from keywarp.training import TrainingError

    try:
        yield
    except (
        AdaptationError,
        CheckpointError,
        DataError,
        EngineError,
        ExperimentError,
        ExportError,
        TrainingError,
        WeightsError,
    ) as error:
        raise CommandError(str(error)) from error


@contextmanager
def printing_doubts() -> Iterator[None]:
    """Print what is said about savings to stderr, each as one sentence."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SavingWarning)
        yield
    for doubt in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, SavingWarning)):
        typer.echo(f"Warning: {doubt}.", err=True)  # once, though the cut and the export both say it
    for warning in caught:
        if not issubclass(warning.category, SavingWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
