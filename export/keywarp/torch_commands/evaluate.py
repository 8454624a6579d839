"""`keywarp evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from keywarp.choices import DeviceName, PaperMotion
from keywarp.cli.errors import CommandError
from keywarp.torch_commands.errors import INSTALL_TRAIN_AND_CPU, importing, reporting_errors
from keywarp.torch_commands.options import DeviceOption, JsonOption

if TYPE_CHECKING:
    from keywarp.engines import MotionSource
    from keywarp.experiments.bundle_accuracy import BundleMeasurement
    from keywarp.experiments.measurement import Measurement
    from keywarp.training import Accuracy, Recipe

MOTIONS: tuple[PaperMotion, ...] = get_args(PaperMotion)


def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint of keywarp train, or a bundle's folder.")],
    recipe: Annotated[Path, typer.Option(help="The recipe that names the data to evaluate on.", dir_okay=False)],
    interval: Annotated[
        int | None, typer.Option(min=1, help="Frames from one key frame to the next.", show_default="the recipe's")
    ] = None,
    motion: Annotated[
        list[str] | None,
        typer.Option(
            help="A motion source to evaluate with. Repeat the option for more. For a checkpoint it is one of "
            f"{', '.join(MOTIONS)}.",
            metavar="MOTION",
            show_default="network, none; of a bundle its own",
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="A precision of the arithmetic to evaluate a bundle in: auto, fp32, bf16, int8. Repeat the option "
            "for more; what they lose is measured against the first.",
            metavar="PRECISION",
            show_default="auto",
        ),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for packages (default: .cache/keywarp/<recipe's name>).")
    ] = None,
    runtime: Annotated[
        bool, typer.Option(help="Also measure a checkpoint's speed through the engine.", show_default=True)
    ] = True,
    device: DeviceOption = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.", dir_okay=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a checkpoint or a bundle on labels: each labelled frame, with key frames 0, 1, ... frames before it.

    Prints the accuracy at each key age, its mean and the lowest one, next to evaluating every frame, and of a
    checkpoint the speed through the engine. A bundle runs in the engine, in each precision that you name, so that you
    see what bf16 and int8 lose on your labels.

    Example: keywarp evaluate checkpoint.pt --recipe export/keywarp/training/recipes/scenes-segmentation.toml

    Example: keywarp evaluate models/street --recipe export/keywarp/training/recipes/street.toml --precision fp32
    --precision int8
    """
    with importing("evaluation", INSTALL_TRAIN_AND_CPU):
        from keywarp.experiments.runner import write_json
        from keywarp.training import read_recipe

    found: BundleMeasurement | Measurement
    with reporting_errors():
        content = read_recipe(recipe)
        content = content.model_copy(update={"key_interval": interval or content.key_interval})
        folder = work or Path(".cache/keywarp") / recipe.stem
        if model.is_dir():
            found = _measure_bundle(model, content, motion, precision or ["auto"], folder)
        else:
            found = _measure_checkpoint(model, content, motion, precision, folder, device, runtime)
    if out is not None:
        try:
            write_json(found.figures(), out)
        except OSError as error:
            raise CommandError(f"can't write {out}: {error.strerror}") from error
    if as_json:
        typer.echo(json.dumps(found.figures(), indent=2))
        return
    if model.is_dir():
        _print_bundle(cast("BundleMeasurement", found))
    else:
        _print_checkpoint(cast("Measurement", found))


def _measure_checkpoint(
    checkpoint: Path,
    recipe: "Recipe",
    motions: list[str] | None,
    precisions: list[str] | None,
    work: Path,
    device: DeviceName,
    runtime: bool,
) -> "Measurement":
    with importing("evaluation", INSTALL_TRAIN_AND_CPU):
        from keywarp.experiments.measurement import measure_checkpoint
        from keywarp.training.console import ConsoleReporter
        from keywarp.training.process import open_process

    if precisions:
        raise typer.BadParameter(
            f"{checkpoint} is a checkpoint, which is evaluated in fp32: export it, and give the bundle's folder",
            param_hint="--precision",
        )
    for name in motions or ():
        if name not in MOTIONS:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(MOTIONS)}", param_hint="--motion")
    with open_process(device, "fp32") as process, ConsoleReporter() as reporter:
        return measure_checkpoint(
            checkpoint,
            recipe,
            cast("list[PaperMotion]", motions or ["network", "none"]),
            work,
            process.require_single(),
            reporter,
            runtime,
        )


def _measure_bundle(
    folder: Path, recipe: "Recipe", motions: list[str] | None, precisions: list[str], work: Path
) -> "BundleMeasurement":
    with importing("evaluation", INSTALL_TRAIN_AND_CPU):
        from keywarp.engines import load_bundle
        from keywarp.engines.backends import Precision
        from keywarp.experiments.bundle_accuracy import measure_bundle
        from keywarp.training.console import ConsoleReporter

    known = get_args(Precision)
    for name in precisions:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(known)}", param_hint="--precision")
    bundle = load_bundle(folder)
    sources = [_motion_of_bundle(name) for name in motions or [bundle.manifest.motion]]
    chosen = cast("list[Precision]", list(dict.fromkeys(precisions)))
    with ConsoleReporter() as reporter:
        return measure_bundle(bundle, recipe, sources, chosen, work, reporter)


def _motion_of_bundle(name: str) -> "MotionSource":
    from keywarp.engines import MotionSource

    try:
        source = MotionSource.parse(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--motion") from error
    if source.flow == "codec":
        raise typer.BadParameter(
            f"{name!r} needs a video's own motion vectors, which labelled frames don't have", param_hint="--motion"
        )
    return source


def _print_checkpoint(found: "Measurement") -> None:
    from keywarp.training.console import print_accuracy

    print_accuracy(found.accuracy)
    _print_ages(found.accuracy)
    for way, timed in found.runtime.items():
        speed = timed.frames_per_second(found.interval)
        typer.echo(
            f"Runtime, {way}: key frame {1000 * timed.key:.1f} ms, others {1000 * timed.propagated:.1f} ms, so "
            f"{speed:.1f} fps at l = {found.interval} and {1 / timed.key:.1f} at l = 1 ({timed.backend}, batch 1)"
        )


def _print_bundle(found: "BundleMeasurement") -> None:
    """Print a row for each precision, with what it loses against the first one in points."""
    from rich.console import Console
    from rich.table import Table

    for source, precisions in found.accuracy.items():
        first = next(iter(precisions.values()))
        table = Table("precision", "motion", title=f"{source}, {first.per_frame.metric}", title_justify="left")
        for column in ("per frame", f"interval {found.interval}", "worst key age"):
            table.add_column(column, justify="right")
        for precision, figures in precisions.items():
            for motion, value in figures.by_motion.items():
                pairs = (
                    (figures.per_frame.mean, first.per_frame.mean),
                    (value.mean, first.by_motion[motion].mean),
                    (value.worst, first.by_motion[motion].worst),
                )
                cells = [_points(mine, None if figures is first else reference) for mine, reference in pairs]
                table.add_row(precision, motion, *cells)
        Console().print(table)
        for precision, figures in precisions.items():
            _print_ages({f"{source}, {precision}": figures.by_motion})
    backends = sorted({figures.backend for ways in found.accuracy.values() for figures in ways.values()})
    typer.echo(f"Run in {', '.join(backends)}")


def _points(value: float, reference: float | None) -> str:
    """Return a share in percent, with its distance from a reference."""
    change = "" if reference is None else f" ({100 * (value - reference):+.2f})"
    return f"{100 * value:.2f}{change}"


def _print_ages(accuracy: "dict[str, dict[str, Accuracy]]") -> None:
    for source, ways in accuracy.items():
        for way, value in ways.items():
            ages = [f"{100 * age:.1f}" for age in value.by_age]
            typer.echo(f"{source}, {way}, by key age: {' '.join(ages)}")
