"""Turning failures into `CommandError`, which `keywarp` prints as one sentence before it exits with status 1."""

from collections.abc import Iterator
from contextlib import contextmanager

from keywarp.cli.errors import CommandError

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
