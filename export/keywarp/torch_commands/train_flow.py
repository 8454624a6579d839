"""`keywarp train-flow`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from keywarp.cli.files import check_writable
from keywarp.torch_commands.errors import importing, reporting_errors
from keywarp.torch_commands.options import DeviceOption, JsonOption, PartsOption, PrecisionOption


def train_flow(
    recipe: Annotated[Path, typer.Argument(help="The flow recipe, a TOML file.", dir_okay=False)],
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for packages, progress and weights (default: .cache/keywarp/<recipe's name>)."),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    parts: PartsOption = 1,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that generate samples. 0 generates them in the process that trains.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train the flow network that every imported network starts with. A stopped training resumes when run again.

    On two cores, two processes of one thread each are faster than one of two:
    OMP_NUM_THREADS=1 torchrun --no-python --nproc-per-node 2 keywarp train-flow RECIPE.

    Example: keywarp train-flow export/keywarp/training/recipes/flow/pyramid.toml
    """
    with importing("training"):
        from keywarp.training.console import ConsoleReporter
        from keywarp.training.flow_recipe import read_flow_recipe
        from keywarp.training.flow_training import train_flow_network
        from keywarp.training.process import open_process
        from keywarp.training.reporting import SilentReporter

    with reporting_errors():
        content = read_flow_recipe(recipe)
        work = work or Path(".cache/keywarp") / recipe.stem
        check_writable(work)
        with open_process(device, precision, parts) as process:
            if not process.is_leader:
                train_flow_network(content, work, process, SilentReporter(), workers)
                return
            with ConsoleReporter() as reporter:
                path, seconds = train_flow_network(content, work, process, reporter, workers)
    if as_json:
        typer.echo(json.dumps({"weights": str(path), "steps": content.steps, "seconds": round(seconds)}))
    else:
        typer.echo(f"{path}: {content.steps} steps in {seconds / 60:.0f} minutes")
