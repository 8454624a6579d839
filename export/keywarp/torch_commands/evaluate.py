"""`keywarp evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from keywarp.choices import PaperMotion
from keywarp.cli.errors import CommandError
from keywarp.torch_commands.errors import INSTALL_TRAIN_AND_CPU, importing, reporting_errors
from keywarp.torch_commands.options import DeviceOption, JsonOption

if TYPE_CHECKING:
    from keywarp.training import Accuracy

MOTIONS: tuple[PaperMotion, ...] = get_args(PaperMotion)


def _known_motions(names: list[str] | None) -> list[str] | None:
    """Check names that may be repeated, for which Typer takes no `Literal`."""
    for name in names or ():
        if name not in MOTIONS:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(MOTIONS)}")
    return names


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of keywarp train.", dir_okay=False)],
    recipe: Annotated[Path, typer.Option(help="The recipe that names the data to evaluate on.", dir_okay=False)],
    interval: Annotated[
        int | None, typer.Option(min=1, help="Frames from one key frame to the next.", show_default="the recipe's")
    ] = None,
    motion: Annotated[
        list[str] | None,
        typer.Option(
            help="A motion source to evaluate with. Repeat the option for more.",
            metavar=f"[{'|'.join(MOTIONS)}]",
            show_default="network, none",
            callback=_known_motions,
        ),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for packages (default: .cache/keywarp/<recipe's name>).")
    ] = None,
    runtime: Annotated[bool, typer.Option(help="Also measure the speed through the engine.")] = True,
    device: DeviceOption = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.", dir_okay=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a checkpoint by the paper's protocol: each labelled frame, with key frames 0, 1, ... frames before it.

    Prints the accuracy at each key age, its mean and the lowest one, next to evaluating every frame, and the speed
    through the engine.

    Example: keywarp evaluate checkpoint.pt --recipe export/keywarp/training/recipes/scenes-segmentation.toml
    """
    with importing("evaluation", INSTALL_TRAIN_AND_CPU):
        from keywarp.experiments.measurement import measure_checkpoint
        from keywarp.experiments.runner import write_json
        from keywarp.training import read_recipe
        from keywarp.training.console import ConsoleReporter, print_accuracy
        from keywarp.training.process import open_process

    with reporting_errors():
        content = read_recipe(recipe)
        content = content.model_copy(update={"key_interval": interval or content.key_interval})
        with open_process(device, "fp32") as process, ConsoleReporter() as reporter:
            found = measure_checkpoint(
                checkpoint,
                content,
                cast("list[PaperMotion]", motion or ["network", "none"]),
                work or Path(".cache/keywarp") / recipe.stem,
                process.require_single(),
                reporter,
                runtime,
            )
    if out is not None:
        try:
            write_json(found.figures(), out)
        except OSError as error:
            raise CommandError(f"can't write {out}: {error.strerror}") from error
    if as_json:
        typer.echo(json.dumps(found.figures(), indent=2))
        return
    print_accuracy(found.accuracy)
    _print_ages(found.accuracy)
    for way, timed in found.runtime.items():
        speed = timed.frames_per_second(content.key_interval)
        typer.echo(
            f"Runtime, {way}: key frame {1000 * timed.key:.1f} ms, others {1000 * timed.propagated:.1f} ms, so "
            f"{speed:.1f} fps at l = {content.key_interval} and {1 / timed.key:.1f} at l = 1 ({timed.backend}, batch 1)"
        )


def _print_ages(accuracy: "dict[str, dict[str, Accuracy]]") -> None:
    for source, ways in accuracy.items():
        for way, value in ways.items():
            ages = [f"{100 * age:.1f}" for age in value.by_age]
            typer.echo(f"{source}, {way}, by key age: {' '.join(ages)}")
