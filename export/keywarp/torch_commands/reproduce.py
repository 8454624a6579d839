"""`keywarp reproduce`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from keywarp.choices import ExperimentName, PresetName
from keywarp.cli.files import check_writable
from keywarp.torch_commands.errors import INSTALL_TRAIN_AND_CPU, importing, reporting_errors
from keywarp.torch_commands.options import DeviceOption, PartsOption, PrecisionOption

OUT_OF_TIME = 3  # exit status when --minutes have passed and work is left


def reproduce(
    name: Annotated[Literal[ExperimentName, "all"], typer.Argument(help="A table or figure of the paper, or all.")],
    preset: Annotated[
        PresetName,
        typer.Option(
            help="cpu: generated video and compact networks, hours on two cores. hard: the same networks on more and "
            "faster objects, trained for longer. paper: the paper's data sets and networks, for GPUs. smoke: two "
            "training steps, to see that everything runs."
        ),
    ] = "cpu",
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints and measurements (default: .cache/keywarp/reproduce/<preset>)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results (default: docs/results for cpu, docs/results/hard for hard, else "
            "<work>/results)."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help=f"Stop after this time with exit status {OUT_OF_TIME}; the same command resumes the work."
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    parts: PartsOption = 1,
) -> None:
    """Repeat an experiment of the paper: train what is missing, evaluate, write JSON, Markdown and a picture.

    You can stop it at any time. It resumes when the command is run again.

    Example: keywarp reproduce table4 --preset cpu --minutes 60
    """
    with importing("an experiment", INSTALL_TRAIN_AND_CPU):
        from keywarp.experiments.catalog import EXPERIMENTS
        from keywarp.experiments.errors import OutOfTimeError
        from keywarp.experiments.presets import open_preset
        from keywarp.experiments.runner import Runner
        from keywarp.training.console import ConsoleReporter
        from keywarp.training.process import open_process

    work = work or Path(".cache/keywarp/reproduce") / preset
    results = Path("docs/results")
    out = out or {"cpu": results, "hard": results / "hard"}.get(preset, work / "results")
    for folder in (work, out):
        check_writable(folder)
    names = list(EXPERIMENTS) if name == "all" else [name]
    seconds = None if minutes is None else 60 * minutes
    with reporting_errors():
        try:
            with open_process(device, precision, parts) as process, ConsoleReporter() as reporter:
                runner = Runner(open_preset(preset), work, process.require_single(), reporter, seconds)
                for chosen in names:
                    for file in EXPERIMENTS[chosen](runner).write(out):
                        typer.echo(str(file))
        except OutOfTimeError as error:
            typer.echo(f"The time limit of {minutes:g} minutes is reached; run the same command to resume", err=True)
            raise typer.Exit(OUT_OF_TIME) from error
