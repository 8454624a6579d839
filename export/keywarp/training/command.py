"""`keywarp train`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from keywarp.training.variants import Variant


class Device(StrEnum):
    """Where to train."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class PrecisionName(StrEnum):
    """What to compute in."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


DeviceOption = Annotated[Device, typer.Option(help="Where to compute; auto: CUDA if there is one.")]
PrecisionOption = Annotated[
    PrecisionName, typer.Option(help="auto: bf16 where the device computes in it, else fp32. fp16 is for CUDA.")
]
PartsOption = Annotated[
    int, typer.Option(min=1, help="Compute batches in so many parts, one after the other: for less memory.")
]


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.", dir_okay=False)],
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for packages, labels and progress (default: .cache/keywarp/<recipe's name>)."),
    ] = None,
    variant: Annotated[
        Variant | None, typer.Option(help="What is trained jointly (the paper's Table 3), instead of the recipe's.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint whose recognition network to start from; variants that train none need it.",
            dir_okay=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of chance, instead of the recipe's.")] = None,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = PrecisionName.AUTO,
    parts: PartsOption = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw samples; 0: the one that trains.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the accuracy as JSON.")] = False,
) -> None:
    """Train a model as a recipe says; stop it at any time, it goes on where it was.

    On several devices: torchrun --no-python --nproc-per-node 8 keywarp train RECIPE.

    Example: keywarp train export/keywarp/training/recipes/street.toml
    """
    try:
        from keywarp.training.compute import open_compute
        from keywarp.training.console import ConsoleReporter, print_accuracy
        from keywarp.training.pipeline import run
        from keywarp.training.reporting import Silence
    except ImportError as error:
        typer.echo(f"Training needs {error.name}: install the extra `train` (README, Install)", err=True)
        raise typer.Exit(1) from error
    from keywarp.datasets import DataError
    from keywarp.networks import CheckpointError, WeightsError
    from keywarp.training.errors import TrainingError
    from keywarp.training.recipe import read_recipe

    try:
        content = read_recipe(recipe)
        changes = {"variant": variant, "seed": seed}
        content = content.model_copy(update={name: value for name, value in changes.items() if value is not None})
        work = work or Path(".cache/keywarp") / recipe.stem
        begun = "" if seed is None else f"seed{seed}"
        folders = (begun, str(Path(begun, variant.value)) if variant else begun)
        with open_compute(device.value, precision.value, parts) as compute:
            if not compute.leads:
                run(content, recipe, work, compute, Silence(), start, workers, folders)
                return
            with ConsoleReporter() as reporter:
                checkpoint, accuracy = run(content, recipe, work, compute, reporter, start, workers, folders)
    except (DataError, TrainingError, WeightsError, CheckpointError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    print_accuracy(accuracy, checkpoint, as_json)
