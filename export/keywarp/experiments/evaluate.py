"""`keywarp evaluate`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keywarp.training.command import Device, DeviceOption

if TYPE_CHECKING:
    from keywarp.training.evaluation import Accuracy


class Way(StrEnum):
    """Where the features between key frames come from."""

    NETWORK = "network"
    NONE = "none"
    SIFT_FAST = "sift-fast"
    SIFT_SLOW = "sift-slow"


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of keywarp train.", dir_okay=False)],
    recipe: Annotated[Path, typer.Option(help="The recipe, which says what it's evaluated on.", dir_okay=False)],
    interval: Annotated[
        int | None, typer.Option(min=1, help="Frames from key to key.", show_default="the recipe's")
    ] = None,
    motion: Annotated[
        list[Way] | None,
        typer.Option(help="Where the motion comes from; may be given several times.", show_default="network, none"),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for packages (default: .cache/keywarp/<recipe's name>).")
    ] = None,
    runtime: Annotated[bool, typer.Option(help="Time it through the engine, too.")] = True,
    device: DeviceOption = Device.AUTO,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.", dir_okay=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a checkpoint by the paper's protocol: for each labelled frame, from key frames 0, 1, ... frames back.

    Accuracy by key age, their mean and the worst, beside evaluating every frame; and the speed through the engine.

    Example: keywarp evaluate checkpoint.pt --recipe export/keywarp/training/recipes/scenes-segmentation.toml
    """
    try:
        from keywarp.experiments.laboratory import write_json
        from keywarp.experiments.measurement import measure_checkpoint
        from keywarp.training.compute import open_compute
        from keywarp.training.console import ConsoleReporter, print_accuracy
        from keywarp.training.recipe import read_recipe
    except ImportError as error:
        typer.echo(f"Evaluation needs {error.name}: install the extras `train` and `cpu` (README, Install)", err=True)
        raise typer.Exit(1) from error
    from keywarp.datasets import DataError
    from keywarp.engines import EngineError
    from keywarp.experiments.errors import ExperimentError
    from keywarp.export import ExportError
    from keywarp.networks import CheckpointError, WeightsError
    from keywarp.training.errors import TrainingError

    try:
        content = read_recipe(recipe)
        content = content.model_copy(update={"key_interval": interval or content.key_interval})
        with open_compute(device.value, "fp32") as compute, ConsoleReporter() as reporter:
            found = measure_checkpoint(
                checkpoint,
                content,
                [way.value for way in motion or (Way.NETWORK, Way.NONE)],
                work or Path(".cache/keywarp") / recipe.stem,
                compute.alone(),
                reporter,
                runtime,
            )
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
    if out is not None:
        try:
            write_json(found.figures(), out)
        except OSError as error:
            typer.echo(f"Error: can't write {out}: {error.strerror}", err=True)
            raise typer.Exit(1) from error
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
