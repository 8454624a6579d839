"""`keywarp train`."""

from pathlib import Path
from typing import Annotated

import typer

from keywarp.choices import Variant
from keywarp.torch_commands.errors import importing, reporting_errors
from keywarp.torch_commands.options import DeviceOption, JsonOption, PartsOption, PrecisionOption


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.", dir_okay=False)],
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for packages, labels and progress (default: .cache/keywarp/<recipe's name>)."),
    ] = None,
    variant: Annotated[
        Variant | None,
        typer.Option(help="Which networks are trained jointly (the paper's Table 3), instead of the recipe's choice."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint whose recognition network to start from. Variants that train no recognition network "
            "need one.",
            dir_okay=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed, instead of the recipe's.")] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    parts: PartsOption = 1,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that load samples. 0 loads them in the process that trains.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train the model that a recipe describes. A stopped training resumes when the command is run again.

    On several devices: torchrun --no-python --nproc-per-node 8 keywarp train RECIPE.

    Example: keywarp train export/keywarp/training/recipes/street.toml
    """
    with importing("training"):
        from keywarp.training import read_recipe, run
        from keywarp.training.console import ConsoleReporter, print_accuracy
        from keywarp.training.process import open_process
        from keywarp.training.reporting import SilentReporter

    with reporting_errors():
        content = read_recipe(recipe)
        changes = {"variant": variant, "seed": seed}
        content = content.model_copy(update={name: value for name, value in changes.items() if value is not None})
        work = work or Path(".cache/keywarp") / recipe.stem
        pretrained = "" if seed is None else f"seed{seed}"
        folders = (pretrained, str(Path(pretrained, variant)) if variant else pretrained)
        with open_process(device, precision, parts) as process:
            if not process.is_leader:
                run(content, recipe, work, process, SilentReporter(), start, workers, folders)
                return
            with ConsoleReporter() as reporter:
                checkpoint, accuracy = run(content, recipe, work, process, reporter, start, workers, folders)
    print_accuracy(accuracy, checkpoint, as_json)
