"""`keywarp adapt`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keywarp.cli.errors import CommandError
from keywarp.cli.files import check_writable
from keywarp.cli.options import AsStoredOption, StoredVideoOption
from keywarp.clips.options import AllowDamageOption
from keywarp.clips.ranges import RangeOption, chosen_range
from keywarp.torch_commands.errors import INSTALL_TRAIN_AND_CPU, importing, reporting_errors
from keywarp.torch_commands.options import DeviceOption, JsonOption, PrecisionOption

if TYPE_CHECKING:
    from keywarp.adaptation import Adaptation, Start
    from keywarp.engines.comparison import Comparison

DEFAULT_MINUTES = 15.0
GIGABYTE = 10**9


def adapt(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", file_okay=False, show_default=False)],
    videos: Annotated[
        list[str], typer.Argument(help="Video files or folders of images.", metavar="VIDEO...", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(help="The new bundle's folder; an older bundle in it is replaced.", file_okay=False)
    ],
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="How long to compute features and to train; judging comes on top.",
            show_default=f"{DEFAULT_MINUTES:g}",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="How many steps to train, instead of a time.", show_default=False)
    ] = None,
    seconds: RangeOption = None,
    hold_out: Annotated[
        float,
        typer.Option(
            min=0.02, max=0.9, help="The share of each video (or of its range), its end, that is only judged on."
        ),
    ] = 0.2,
    max_age: Annotated[
        int | None,
        typer.Option(
            min=1, help="The largest key age to learn and judge, in frames.", show_default="the key interval - 1"
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            help="The flow network to start from: own is the bundle's, pretrained the shipped one, auto the latter if "
            "the former is untrained or missing; or another bundle, or its flow.onnx."
        ),
    ] = "auto",
    motion: Annotated[str, typer.Option(help="Motion sources to judge, a list with commas.", show_default="all")] = "",
    head: Annotated[bool, typer.Option("--head", help="Train the head along with the flow network.")] = False,
    rate: Annotated[float, typer.Option(min=1e-7, max=1.0, help="The highest learning rate.")] = 5e-4,
    batch: Annotated[int, typer.Option(min=1, help="Pairs of frames in a step.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Decides which pairs are drawn.")] = 0,
    cache_size: Annotated[
        float, typer.Option(min=0.01, help="The most disk space for features, in GB; longer videos are sampled.")
    ] = 4.0,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for features and progress.", file_okay=False, show_default=".cache/keywarp/adapt/NAME"
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    as_stored: AsStoredOption = False,
    video: StoredVideoOption = None,
    allow_damage: AllowDamageOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a bundle's flow network and scale field to its network and to videos, without labels.

    The last part of each video is held out. On it, the command compares all motion sources before and after, and makes
    the best one the new bundle's default. It takes about 20 minutes on two cores. If it is interrupted, the same
    command goes on.

    Example: keywarp adapt models/street gate.mp4 yard.mp4 --out models/street-gate

    Example: keywarp adapt models/street gate.mkv --video 1 --as-stored --allow-damage --out models/street-gate
    """
    with importing("adapting", INSTALL_TRAIN_AND_CPU):
        from keywarp.adaptation import AdaptationOptions
        from keywarp.adaptation import adapt as run_adaptation
        from keywarp.clips.opening import open_clip
        from keywarp.engines import load_bundle
        from keywarp.training.console import ConsoleReporter
        from keywarp.training.process import open_process

    window = chosen_range(seconds)
    if minutes is not None and steps is not None:
        raise typer.BadParameter("give either a time or a number of steps", param_hint="--steps")
    try:
        options = AdaptationOptions(
            minutes=None if steps is not None else minutes or DEFAULT_MINUTES,
            steps=steps,
            hold_out=hold_out,
            max_age=max_age,
            motions=tuple(part.strip() for part in motion.split(",") if part.strip()),
            head=head,
            start=_start(start),
            cache_size=int(cache_size * GIGABYTE),
            batch=batch,
            rate=rate,
            seed=seed,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--motion") from error
    folder = work or Path(".cache/keywarp/adapt") / out.name
    clips = [open_clip(name, window, as_stored=as_stored, number=video, allow_damage=allow_damage) for name in videos]
    for path in (out, folder):
        check_writable(path)
    try:
        with reporting_errors(), open_process(device, precision) as process, ConsoleReporter() as reporter:
            process.require_single()
            adaptation = run_adaptation(load_bundle(bundle), clips, out, folder, options, process, reporter)
    except OSError as error:
        raise CommandError(f"{error.filename or folder} can't be used: {error.strerror or error}") from error
    if as_json:
        typer.echo(json.dumps(_figures(adaptation), indent=2))
    else:
        _print(adaptation, folder)


def _start(text: str) -> "Start | Path":
    """Return what a start's name or path means.

    Raises:
        typer.BadParameter: If it is neither.
    """
    from keywarp.adaptation import START_NAMES

    for name in START_NAMES:
        if text == name:
            return name
    if not Path(text).exists():
        raise typer.BadParameter(
            f"{text!r} is neither a bundle nor one of {', '.join(START_NAMES)}", param_hint="--start"
        )
    return Path(text)


def _figures(adaptation: "Adaptation") -> dict[str, Any]:
    """Return the figures for JSON."""
    return {
        "bundle": str(adaptation.bundle.path),
        "version": adaptation.bundle.manifest.version,
        "motion": adaptation.motion,
        "start": adaptation.start,
        "measure": adaptation.after.measure,
        "held_out": [
            {
                "video": part.video,
                "first": part.first,
                "end": part.end,
                "learned": part.learned,
                "skipped": part.skipped,
            }
            for part in adaptation.held_out
        ],
        "steps": adaptation.fit.steps,
        "seconds": adaptation.fit.seconds,
        "loss": adaptation.fit.loss,
        "cache_bytes": adaptation.cache_size,
        "notes": adaptation.notes,
        "per_frame_ms": adaptation.after.per_frame_ms,
        "before": _sources(adaptation.before),
        "after": _sources(adaptation.after),
        "recommended": {
            "source": adaptation.after.recommended.source,
            "interval": adaptation.after.recommended.interval,
            "agreement": adaptation.after.recommended.agreement,
        },
    }


def _sources(comparison: "Comparison") -> dict[str, Any]:
    return {
        name: {
            "mean": figures.mean,
            "by_age": {str(age): value for age, value in figures.by_age.items()},
            "feature_error": figures.feature_error,
            "ms": figures.ms,
        }
        for name, figures in comparison.sources.items()
    }


def _print(adaptation: "Adaptation", work: Path) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    after, ages = adaptation.after, sorted(next(iter(adaptation.after.sources.values())).by_age)
    shown = sorted({ages[round(place * (len(ages) - 1) / 4)] for place in range(5)})
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(f"{after.measure} at key age", overflow="fold")
    for title in ("", *map(str, shown), "mean", "features", "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for when, comparison in (("before", adaptation.before), ("after", after)):
        for name, figures in comparison.sources.items():
            if when == "after" and name == "none":
                continue  # copied features don't depend on the flow network
            error = "" if figures.feature_error is None else f"{figures.feature_error:.2f}"
            chosen = when == "after" and name == adaptation.motion
            table.add_row(
                name,
                when,
                *(f"{figures.by_age[age]:.3f}" for age in shown),
                f"{figures.mean:.3f}",
                error,
                f"{figures.ms:.1f}",
                style="bold" if chosen else None,
            )
    Console().print(table)
    fit, say = adaptation.fit, typer.echo
    for part in adaptation.held_out:
        left_out = f" ({part.skipped} more were left out)" if part.skipped else ""
        judged = f"frames {part.first} to {part.end - 1}"
        say(f"{part.video}: learned from {part.learned} frames{left_out}, judged on {judged}.")
    say(f"{fit.steps} steps in {fit.seconds / 60:.1f} minutes, from the flow network: {adaptation.start}.")
    say(f"{adaptation.cache_size / GIGABYTE:.2f} GB of features are in {work}; it can be deleted now.")
    for note in adaptation.notes:
        say(note)
    say(_verdict(adaptation))
    say(f"{adaptation.bundle.path}: {adaptation.bundle.name} {adaptation.bundle.manifest.version}")
    say(f"Next: keywarp compare {adaptation.bundle.path} VIDEO")


def _verdict(adaptation: "Adaptation") -> str:
    """Say in a sentence or two what came out, and whether the flow network is worth using."""
    sources, before = adaptation.after.sources, adaptation.before.sources
    chosen, network = sources[adaptation.motion], sources["network"]
    was = before.get("network") or before["none"]
    earlier = "before" if "network" in before else "copied features"
    change = f"The adapted flow network with its scale field reaches {network.mean:.3f}, {earlier} {was.mean:.3f}."
    if network.mean < was.mean:
        change += " So the training made it worse: train longer, or keep the old bundle."
    if adaptation.motion == "network":
        others = "No other source agrees better"
        if any(round(source.mean, 3) > round(network.mean, 3) for source in sources.values()):
            others = "What agrees better does so by next to nothing, and costs more"
        return f"{change} {others}, so it is the new bundle's default motion."
    better = round(chosen.mean, 3) > round(network.mean, 3)
    reason = "agrees better" if better else "agrees as well and costs less"
    return (
        f"{change} {adaptation.motion} {reason} ({chosen.mean:.3f}), so this is the new bundle's default motion and "
        "not the flow network."
    )
