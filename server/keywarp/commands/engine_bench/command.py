"""`keywarp bench engine`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from keywarp.cli.errors import CommandError
from keywarp.cli.files import check_writable, write_errors
from keywarp.cli.options import AsStoredOption, IntervalOption
from keywarp.client import open_source
from keywarp.commands.bench_tables import describe_setting, print_json, print_table
from keywarp.commands.bundles import find_bundle
from keywarp.commands.engine_bench.alone import measure_alone
from keywarp.commands.engine_bench.comparison import REFUSALS, Options, compare
from keywarp.commands.engine_bench.footage import Frame, read_windows
from keywarp.commands.engine_bench.networks import PAPER_CONFIGS, open_networks
from keywarp.commands.engine_bench.report import as_json as result_as_json
from keywarp.commands.engine_bench.report import draw_chart, print_tables
from keywarp.commands.options import (
    MODELS,
    BackendOption,
    InputVideoOption,
    JsonOption,
    ModelsOption,
    PrecisionOption,
    ThreadsOption,
)
from keywarp.commands.progress import stage_bar
from keywarp.commands.sample_video import sample_video
from keywarp.engines import Engine, EngineError

MODEL = "street"  # the default
LIST = "LIST"
WIDTH = 120  # least number of columns that the tables need
INTERRUPTED = 130  # exit status, as of a shell


def engine(
    model: Annotated[
        str | None,
        typer.Option("--model", help="A bundle's name in the models folder, or its own folder.", show_default=MODEL),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help=f"Compare with everything that could run in its place: {', '.join(PAPER_CONFIGS)} (the paper's "
            "networks at 600x1000, with random weights), or any bundle, such as street.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    nano: Annotated[
        Path | None,
        typer.Option(
            help="With --config: the ONNX file of a light network, which runs on every frame in int8.",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default="torchvision's SSDLite or LR-ASPP with MobileNetV3",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="With --config: compare only these, a list with commas: onnxruntime, openvino, pytorch, nano, the "
            "flow networks and motion sources by name, parts, peak.",
            metavar=LIST,
            show_default="all",
        ),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="With --config: leave these out.", metavar=LIST, show_default="none")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="With --config: draw bars to this PNG file.", metavar="FILE", dir_okay=False),
    ] = None,
    models: ModelsOption = MODELS,
    video: InputVideoOption = None,
    interval: IntervalOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="The number of measurements of each figure.")] = 10,
    threads: ThreadsOption = 0,
    as_stored: AsStoredOption = False,
    as_json: JsonOption = False,
) -> None:
    """Time the engine by itself, or beside everything that could run in its place.

    It measures one stream with batch 1, from decoded frames to results.
    Without --config, runs with key frames and per-frame runs over the same
    frames alternate; the figures are medians over the rounds.

    With --config, these take turns in one process: the whole network on
    every frame in ONNX Runtime, OpenVINO and PyTorch, a light network on
    every frame in int8, and the engine with each flow network, with optical
    flow and with the codec's motion vectors. All but the light network do so
    in each precision, or only in --precision. Networks with random weights
    are made once, and kept in the cache. Ctrl-C prints the figures so far.

    Example: keywarp bench engine --model street

    Example: keywarp bench engine --config paper-detection --rounds 5 --picture paper.png
    """
    if config is None:
        for name, value in (("--nano", nano), ("--only", only), ("--without", without), ("--picture", picture)):
            if value:
                raise typer.BadParameter("works only with --config", param_hint=name)
        bundle = find_bundle(model or MODEL, models)
        length = interval or bundle.manifest.key_interval
        with open_source(video or sample_video(), upright=not as_stored) as source:
            frames = [frame.image for frame, _ in zip(source, range(length), strict=False)]
        try:
            compiled = Engine(bundle, backend, precision, threads)
            compiled.prepare(*frames[0].shape[:2])
        except EngineError as error:
            raise CommandError(str(error)) from error
        _print_alone(compiled, frames, rounds, length, as_json=as_json)
        return
    for name, given in (("--model", model), ("--interval", interval)):
        if given is not None:
            raise typer.BadParameter("means nothing with --config", param_hint=name)
    if picture is not None:
        if picture.suffix.lower() != ".png":
            raise typer.BadParameter(f"{picture.name!r} isn't the name of a PNG file", param_hint="--picture")
        check_writable(picture.absolute().parent)
    options = Options(
        rounds=rounds,
        threads=threads,
        backend=backend,
        precision=precision,
        nano=nano,
        only=_listed(only),
        without=_listed(without),
    )
    console = Console(stderr=as_json)  # so that the JSON stands alone
    console.width = max(console.width, WIDTH)
    try:
        with stage_bar() as show:
            networks = open_networks(config, models, lambda what: show(what, 0, None))
            show("reading the video", 0, None)
            windows = read_windows(video or sample_video(), networks.size, rounds, as_stored=as_stored)
            result = compare(networks, windows, options, show)
    except REFUSALS as error:
        raise CommandError(str(error)) from error
    if as_json:
        print_json(result_as_json(result))
    else:
        print_tables(result, console)
    if picture is not None:
        with write_errors(picture):
            draw_chart(result).save(picture)
        console.print(f"{picture}: what a frame takes", highlight=False, soft_wrap=True)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _print_alone(compiled: Engine, frames: list[Frame], rounds: int, interval: int, *, as_json: bool) -> None:
    height, width = frames[0].shape[:2]
    medians = measure_alone(compiled, frames, rounds)
    setting = describe_setting(compiled.bundle, compiled.backend, width, height, interval)
    if as_json:
        print_json({"setting": setting, "seconds": asdict(medians), "speed_up": medians.speed_up})
        return
    rows = [
        ("key frame", f"{1000 * medians.key:.1f} ms"),
        ("propagated frame", f"{1000 * medians.propagated:.1f} ms"),
        (f"interval {interval}", f"{1000 * medians.keyed:.1f} ms a frame, {1 / medians.keyed:.1f} fps"),
        ("per frame", f"{1000 * medians.per_frame:.1f} ms a frame, {1 / medians.per_frame:.1f} fps"),
        ("speed-up", f"{medians.speed_up:.2f}"),
    ]
    print_table("engine", rows, setting)


def _listed(values: list[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())
