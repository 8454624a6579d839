"""`keywarp compare`: compare propagated results with those of the network on every frame."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keywarp.cli.errors import CommandError
from keywarp.cli.files import check_writable
from keywarp.cli.options import AsStoredOption, StoredVideoOption
from keywarp.clips.opening import open_clip
from keywarp.clips.options import AllowDamageOption
from keywarp.clips.ranges import RangeOption, chosen_range
from keywarp.commands.bundles import find_bundle
from keywarp.commands.comparison_report import as_json, print_tables, write_report
from keywarp.commands.options import (
    MODELS,
    BackendOption,
    BundleArgument,
    CpuFallbackOption,
    JsonOption,
    ModelsOption,
    PrecisionOption,
    ThreadsOption,
)
from keywarp.engines import AdaptiveInterval, EngineError, KeySchedule, Precision
from keywarp.engines.comparison import INTERVALS, MOTIONS, Options, default_motions, forget
from keywarp.engines.comparison import Progress as ShowProgress
from keywarp.engines.comparison import compare as run_comparison
from keywarp.engines.motion import MotionSource
from keywarp.protocol import MAX_INTERVAL

ADAPTIVE_FACTOR = 3  # longest interval of an adaptive schedule, in mean intervals


def compare(
    model: BundleArgument,
    videos: Annotated[
        list[str], typer.Argument(help="Video files or folders of images.", metavar="VIDEO...", show_default=False)
    ],
    motion: Annotated[
        list[str] | None,
        typer.Option(
            help="Motion sources to compare: a list with commas, or the option several times.",
            metavar="LIST",
            show_default=f"{','.join(MOTIONS)} and the bundle's own, without those that the bundle lacks",
        ),
    ] = None,
    interval: Annotated[
        list[str] | None,
        typer.Option(
            help="Key intervals to compare, in frames, listed likewise; the longest one bounds the key age.",
            metavar="LIST",
            show_default=",".join(map(str, INTERVALS)),
        ),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            help="Key schedules to compare, listed likewise: fixed, adaptive (each interval is its mean).",
            metavar="LIST",
            show_default="fixed",
        ),
    ] = None,
    keep: Annotated[float, typer.Option(help="The agreement that the recommendation must keep, 0 to 1.")] = 0.95,
    seconds: RangeOption = None,
    stride: Annotated[int, typer.Option(min=1, help="Propagate from a key frame about every so many frames.")] = 5,
    max_frames: Annotated[
        int | None,
        typer.Option(min=1, help="Run the network on about so many frames of each video at most, spread over it."),
    ] = None,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="Count boxes with at least this confidence.")] = 0.0,
    cuts: Annotated[
        bool, typer.Option("--cuts/--no-cuts", help="Whether results that are propagated over a cut count.")
    ] = True,
    features: Annotated[
        bool, typer.Option("--features/--no-features", help="Whether to measure the error of features, too.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a report with pictures to this folder.", metavar="FOLDER", file_okay=False),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Keep unfinished work in this folder, so that the same command goes on after an interruption.",
            metavar="FOLDER",
            file_okay=False,
        ),
    ] = None,
    models: ModelsOption = MODELS,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    reference: Annotated[
        Precision | None,
        typer.Option(
            help="The precision of the per-frame results, such as fp32 beside --precision int8.",
            show_default="the same",
        ),
    ] = None,
    cpu_fallback: CpuFallbackOption = False,
    threads: ThreadsOption = 0,
    as_stored: AsStoredOption = False,
    video: StoredVideoOption = None,
    allow_damage: AllowDamageOption = False,
    json: JsonOption = False,
) -> None:
    """Compare propagated results with those of the network on every frame.

    It needs no labels. For each motion source it prints how far propagated
    results agree with per-frame results, by key age, what frames cost, and
    the longest key interval that keeps a chosen agreement.

    Example: keywarp compare street street.mp4 --motion none,network,dis --keep 0.9 --out report

    Example: keywarp compare street gate.mkv --video 1 --as-stored --allow-damage
    """
    bundle = find_bundle(model, models)
    window = chosen_range(seconds)
    intervals = _intervals(interval) if interval else INTERVALS
    try:
        options = Options(
            motions=_motions(motion or default_motions(bundle.manifest)),
            intervals=intervals,
            schedules=_schedules(_listed(schedule or ()), intervals),
            keep=keep,
            stride=stride,
            max_frames=max_frames,
            confidence=confidence,
            cuts=cuts,
            features=features,
            backend=backend,
            precision=precision,
            reference=reference,
            threads=threads,
            fallback=cpu_fallback,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    clips = [open_clip(name, window, as_stored=as_stored, number=video, allow_damage=allow_damage) for name in videos]
    for folder in (out, work):
        if folder is not None:
            check_writable(folder)
    try:
        with _progress_bar() as show:
            comparison = run_comparison(bundle, clips, options, progress=show, work=work)
            if out is not None:
                write_report(bundle, clips, options, comparison, out)
            if work is not None:
                forget(bundle, clips, options, work)
    except EngineError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or work} can't be used: {error.strerror or error}") from error
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if json:
        typer.echo(as_json(comparison))
        return
    console = Console()
    print_tables(comparison, console)
    if out is not None:
        console.print(f"{out / 'report.md'}", highlight=False)


def _listed(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the parts of lists with commas, each once."""
    parts = [part.strip() for text in texts for part in text.split(",")]
    return tuple(dict.fromkeys(part for part in parts if part))


def _motions(names: Sequence[str]) -> tuple[str, ...]:
    """Return the motion sources by their shortest names, each once."""
    try:
        return tuple(dict.fromkeys(str(MotionSource.parse(name)) for name in _listed(names)))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--motion") from error


def _intervals(texts: Sequence[str]) -> tuple[int, ...]:
    parts = _listed(texts)
    for part in parts:
        if not part.isdecimal() or not 2 <= int(part) <= MAX_INTERVAL:
            raise typer.BadParameter(
                f"{part!r} isn't a key interval from 2 to {MAX_INTERVAL} frames", param_hint="--interval"
            )
    return tuple(sorted({int(part) for part in parts}))


def _schedules(names: Sequence[str], intervals: Sequence[int]) -> dict[str, KeySchedule]:
    unknown = [name for name in names if name not in ("fixed", "adaptive")]
    if unknown:
        raise typer.BadParameter(f"there is no schedule {unknown[0]!r}: use fixed or adaptive", param_hint="--schedule")
    if "adaptive" not in names:
        return {}
    return {
        f"adaptive {interval}": AdaptiveInterval(target=interval, maximum=min(ADAPTIVE_FACTOR * interval, MAX_INTERVAL))
        for interval in intervals
    }


@contextmanager
def _progress_bar() -> Iterator[ShowProgress]:
    """Show a progress bar for each stage on stderr, if stderr is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = {}

        def show(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done + 1, total=total)

        yield show
