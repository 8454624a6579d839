"""Turning failures into `CommandError`, which `keywarp` prints as one sentence before it exits with status 1."""

from collections.abc import Iterator
from contextlib import contextmanager

from keywarp.cli.errors import CommandError


@contextmanager
def importing(task: str, *extras: str) -> Iterator[None]:
    """Report a package that can't be imported.

    Args:
        task: The first words of the error's text, such as "training".
        extras: The extras of `keywarp` that install what the task imports.

    Raises:
        CommandError: If an import fails. The text names the package and the extras.
    """
    try:
        yield
    except ImportError as error:
        named = "the extra" if len(extras) == 1 else "the extras"
        wanted = " and ".join(f"`{extra}`" for extra in extras)
        raise CommandError(f"{task} needs {error.name}: install {named} {wanted} (README, Install)") from error


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Report every error of data, networks, training, experiments, export and engines by its own text.

    Raises:
        CommandError: If one of them is raised.
    """
    from keywarp.datasets import DataError
    from keywarp.engines import EngineError
    from keywarp.experiments.errors import ExperimentError
    from keywarp.export import ExportError
    from keywarp.networks import CheckpointError, WeightsError
    from keywarp.training import TrainingError

    try:
        yield
    except (
        CheckpointError,
        DataError,
        EngineError,
        ExperimentError,
        ExportError,
        TrainingError,
        WeightsError,
    ) as error:
        raise CommandError(str(error)) from error
