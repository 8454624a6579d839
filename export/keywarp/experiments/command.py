"""`keywarp reproduce`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from keywarp.training.command import Device, DeviceOption, PartsOption, PrecisionName, PrecisionOption

OUT_OF_TIME = 3  # exit status: the time is over, not the work


class Experiment(StrEnum):
    """What can be reproduced."""

    TABLE2 = "table2"
    TABLE4 = "table4"
    TABLE5 = "table5"
    FIGURE1 = "figure1"
    FIGURE3 = "figure3"
    FIGURE4 = "figure4"
    FIGURE5 = "figure5"
    AGES = "ages"
    MOTION = "motion"
    ADAPTIVE = "adaptive"
    ALL = "all"


class PresetName(StrEnum):
    """At what size."""

    CPU = "cpu"
    PAPER = "paper"
    SMOKE = "smoke"


def reproduce(
    name: Annotated[Experiment, typer.Argument(help="A table or figure of the paper, or all.")],
    preset: Annotated[
        PresetName,
        typer.Option(
            help="cpu: generated video and compact networks, hours on two cores. paper: the paper's data sets and "
            "networks, for GPUs. smoke: hardly trained, to see that everything runs."
        ),
    ] = PresetName.CPU,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for what is trained and measured (default: .cache/keywarp/reproduce/<preset>)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results (default: docs/results for cpu, else <work>/results)."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help=f"Stop after so long, with exit status {OUT_OF_TIME}; the same command goes on."),
    ] = None,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = PrecisionName.FP32,
    parts: PartsOption = 1,
) -> None:
    """Repeat an experiment of the paper: trains what is missing, evaluates, writes JSON, Markdown and a picture.

    Stop it at any time, it goes on where it was.

    Example: keywarp reproduce table4 --preset cpu --minutes 60
    """
    try:
        from keywarp.experiments.catalog import EXPERIMENTS
        from keywarp.experiments.laboratory import Laboratory
        from keywarp.experiments.presets import open_preset
        from keywarp.training.compute import open_compute
        from keywarp.training.console import ConsoleReporter
    except ImportError as error:
        typer.echo(f"Experiments need {error.name}: install the extras `train` and `cpu` (README, Install)", err=True)
        raise typer.Exit(1) from error
    from keywarp.datasets import DataError
    from keywarp.engines import EngineError
    from keywarp.experiments.errors import ExperimentError, OutOfTimeError
    from keywarp.export import ExportError
    from keywarp.networks import CheckpointError, WeightsError
    from keywarp.training.errors import TrainingError

    work = work or Path(".cache/keywarp/reproduce") / preset.value
    out = out or (Path("docs/results") if preset is PresetName.CPU else work / "results")
    names = list(EXPERIMENTS) if name is Experiment.ALL else [name.value]
    try:
        with open_compute(device.value, precision.value, parts) as compute, ConsoleReporter() as reporter:
            seconds = None if minutes is None else 60 * minutes
            laboratory = Laboratory(open_preset(preset.value), work, compute.alone(), reporter, seconds)
            for chosen in names:
                for file in EXPERIMENTS[chosen](laboratory).write(out):
                    typer.echo(str(file))
    except OutOfTimeError as error:
        typer.echo(f"The time is over ({minutes:g} minutes); the same command goes on from here", err=True)
        raise typer.Exit(OUT_OF_TIME) from error
    except (
        DataError,
        TrainingError,
        WeightsError,
        CheckpointError,
        ExportError,
        EngineError,
        ExperimentError,
    ) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
