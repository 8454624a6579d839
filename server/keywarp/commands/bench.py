"""`keywarp bench`: what the engine and the server do on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from keywarp.cli.errors import CommandError
from keywarp.commands.models import MODELS, Folder
from keywarp.commands.runtime import BackendOption, PrecisionOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keywarp.commands.traffic import Outcome
    from keywarp.engines import BackendName, Precision

app = typer.Typer(no_args_is_help=True, help="Measure this machine.", pretty_exceptions_enable=False)

Model = Annotated[str, typer.Option(help="A bundle of the models folder.")]
Video = Annotated[Path | None, typer.Option(help="Another video than the demo's.", metavar="FILE")]
Interval = Annotated[
    int | None, typer.Option(min=1, help="Frames from one key frame to the next (default: the model's).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(epilog="Example: keywarp bench engine --model street")
def engine(
    model: Model = "street",
    models: Folder = MODELS,
    video: Video = None,
    interval: Interval = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured.")] = 10,
    as_json: Json = False,
) -> None:
    """Time the engine by itself: key frames, propagated frames, and what that makes against per-frame evaluation.

    One stream, batch 1, decoded frames in, results out. Per-frame and keyed runs over the same frames take turns;
    figures are medians over the rounds.
    """
    import statistics
    import time

    from keywarp.client import open_source
    from keywarp.commands.local import street_video
    from keywarp.commands.models import find_bundle
    from keywarp.engines import Engine, EngineError, FixedInterval, StreamSession

    bundle = find_bundle(model, models)
    length = interval or bundle.manifest.key_interval
    with open_source(video or street_video()) as source:
        frames = [frame.image for frame, _ in zip(source, range(length), strict=False)]
    try:
        compiled = Engine(bundle, cast("BackendName", backend), cast("Precision", precision))
        compiled.prepare(*frames[0].shape[:2])
    except EngineError as error:
        raise CommandError(str(error)) from error
    figures: dict[str, list[float]] = {"key": [], "propagated": [], "keyed": [], "per_frame": []}
    for _ in range(rounds + 1):  # the first is a warm-up
        for name, every in (("keyed", length), ("per_frame", 1)):
            session = StreamSession(compiled, FixedInterval(every))
            started = time.perf_counter()
            for index, frame in enumerate(frames):
                begun = time.perf_counter()
                session.process(frame)
                if name == "keyed":
                    figures["propagated" if index else "key"].append(time.perf_counter() - begun)
            figures[name].append((time.perf_counter() - started) / len(frames))
            session.close()
    warm = {"key": 1, "propagated": len(frames) - 1, "keyed": 1, "per_frame": 1}
    medians = {name: statistics.median(times[warm[name] :]) for name, times in figures.items()}
    height, width = frames[0].shape[:2]
    setting = _setting(model, bundle.manifest.version, compiled.backend, width, height, length)
    if as_json:
        _print_json({"setting": setting, "seconds": medians, "speed_up": medians["per_frame"] / medians["keyed"]})
        return
    rows = [
        ("key frame", f"{1000 * medians['key']:.1f} ms"),
        ("propagated frame", f"{1000 * medians['propagated']:.1f} ms"),
        (f"interval {length}", f"{1000 * medians['keyed']:.1f} ms a frame, {1 / medians['keyed']:.1f} fps"),
        ("per frame", f"{1000 * medians['per_frame']:.1f} ms a frame, {1 / medians['per_frame']:.1f} fps"),
        ("speed-up", f"{medians['per_frame'] / medians['keyed']:.2f}"),
    ]
    _print_table("engine", rows, setting)


@app.command(epilog="Example: keywarp bench server --model street")
def server(
    model: Model = "street",
    models: Folder = MODELS,
    video: Video = None,
    interval: Interval = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured.")] = 5,
    frames: Annotated[int, typer.Option(min=1, help="Of each run.")] = 100,
    as_json: Json = False,
) -> None:
    """Measure what the server adds: one stream against the same decoding and engine in one process.

    Throughput, of JPEG and of H.264, as fast as it goes, median over the rounds; and latency of JPEG frames that come
    at half of that rate, from when each is due, 50th and 99th percentile over all frames of all rounds. Runs take
    turns. Client and server share this machine. The H.264 figure needs a video in H.264.
    """
    import statistics

    import numpy as np

    from keywarp.commands.local import serving, street_video
    from keywarp.commands.models import find_bundle
    from keywarp.commands.traffic import closed_loop, in_process, make_payloads, open_loop
    from keywarp.engines import Engine, FixedInterval, StreamSession
    from keywarp.protocol import Hello

    path = video or street_video()
    bundle = find_bundle(model, models)
    classes, length = bundle.manifest.classes, interval or bundle.manifest.key_interval
    compiled = Engine(bundle)
    payloads = {codec: make_payloads(path, codec, frames) for codec in ("image", "h264")}
    fps: dict[str, list[float]] = {f"{codec} {where}": [] for codec in payloads for where in ("alone", "served")}
    with serving(models) as url:
        for turn in range(rounds + 1):
            for codec, sent in payloads.items():
                session = StreamSession(compiled, FixedInterval(length))
                alone = in_process(session, classes, sent, codec)
                session.close()
                hello = Hello(model=bundle.name, interval=length, codec="h264" if codec == "h264" else "image")
                served = closed_loop(url, f"bench-{turn}-{codec}", hello, sent)
                if turn:  # the first is a warm-up
                    fps[f"{codec} alone"].append(alone.frames / alone.seconds)
                    fps[f"{codec} served"].append(served.frames / served.seconds)
        medians = {name: statistics.median(values) for name, values in fps.items()}
        rate = medians["image alone"] / 2
        waits: dict[str, list[float]] = {"alone": [], "served": []}
        for turn in range(rounds):
            session = StreamSession(compiled, FixedInterval(length))
            waits["alone"] += in_process(session, classes, payloads["image"], "image", rate).latency.values()
            session.close()
            hello = Hello(model=bundle.name, interval=length)
            paced = open_loop(url, f"bench-paced-{turn}", hello, payloads["image"], rate, frames / rate)
            waits["served"] += paced.latency.values()
    latency = {f"p{p}": {where: float(np.percentile(values, p)) for where, values in waits.items()} for p in (50, 99)}
    shares = {codec: medians[f"{codec} served"] / medians[f"{codec} alone"] for codec in payloads}
    setting = _setting(model, bundle.manifest.version, compiled.backend, *_size(path), length)
    if as_json:
        _print_json({"setting": setting, "fps": medians, "share": shares, "latency": latency, "latency_at_fps": rate})
        return
    rows = [
        (
            f"{'JPEG' if codec == 'image' else 'H.264'}",
            f"{medians[f'{codec} served']:.1f} fps served, {medians[f'{codec} alone']:.1f} alone: {100 * share:.0f} %",
        )
        for codec, share in shares.items()
    ]
    rows += [
        (
            f"{name} of latency at {rate:.1f} fps",
            f"{1000 * found['served']:.1f} ms served, {1000 * found['alone']:.1f} alone: "
            f"{1000 * (found['served'] - found['alone']):+.1f} ms ({len(waits['served'])} frames)",
        )
        for name, found in latency.items()
    ]
    _print_table("server", rows, setting)


@app.command(epilog="Example: keywarp bench load --cameras 4 --fps 10 --server http://192.168.7.2:8080")
def load(
    cameras: Annotated[int, typer.Option(min=1, help="Streams at once.")] = 4,
    fps: Annotated[float, typer.Option(min=0.1, help="Of each camera.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long.")] = 20.0,
    url: Annotated[
        str | None, typer.Option("--server", help="A running server (default: one on this machine).", metavar="URL")
    ] = None,
    model: Model = "street",
    models: Folder = MODELS,
    video: Video = None,
    interval: Interval = None,
    max_interval: Annotated[
        int | None, typer.Option(min=1, help="How far intervals may grow where frames are dropped.")
    ] = None,
    codec: Annotated[
        Literal["image", "h264"], typer.Option(help="JPEG images, or the video's H.264 packets.")
    ] = "image",
    mode: Annotated[Literal["latest", "lossless"], typer.Option(help="Of the streams.")] = "latest",
    as_json: Json = False,
) -> None:
    """Load a server with cameras: each sends a frame when it is due, whatever the server does.

    Prints results per second, what was dropped, and how long results took from when their frames were due.
    """
    from concurrent.futures import ThreadPoolExecutor
    from contextlib import nullcontext

    from keywarp.commands.local import serving, street_video
    from keywarp.commands.traffic import make_payloads, open_loop
    from keywarp.protocol import Hello

    path = video or street_video()
    payloads = make_payloads(path, codec, 250)
    hello = Hello(model=model, interval=interval, max_interval=max_interval, mode=mode, codec=codec)
    outcomes: list[Outcome] = []
    with nullcontext(url) if url else serving(models) as address:
        assert address is not None
        open_loop(address, "bench-warm-up", Hello(model=model, codec=codec), payloads[:10], 10, 1)

        def film(number: int) -> "Outcome":
            return open_loop(address, f"bench-{number}", hello, payloads, fps, seconds)

        with ThreadPoolExecutor(cameras) as pool:
            outcomes += pool.map(film, range(cameras))
    figures = _loaded(outcomes, cameras, fps, seconds)
    if as_json:
        _print_json({"model": model, "codec": codec, "mode": mode, "video": path.name, **figures})
        return
    rows = [
        ("sent", f"{cameras} cameras x {fps:g} fps x {seconds:g} s, {codec}, {mode}"),
        (
            "results",
            f"{figures['results']} ({figures['results_per_second']:.1f} a second), {figures['key_frames']} key",
        ),
        ("dropped, errors, unsent", f"{figures['dropped']}, {figures['error']}, {figures['unsent']}"),
        *((name, f"{1000 * value:.0f} ms") for name, value in figures["latency"].items()),
    ]
    _print_table("load", rows, f"{path.name}, model {model}")
    _print_histogram([value for outcome in outcomes for value in outcome.latency.values()])


def _loaded(outcomes: "Sequence[Outcome]", cameras: int, fps: float, seconds: float) -> dict[str, Any]:
    import numpy as np

    latency = [value for outcome in outcomes for value in outcome.latency.values()]
    results = sum(outcome.frames for outcome in outcomes)
    if not latency:
        raise CommandError("no result came: is the server too slow for its streams, or full?")
    percentiles = dict(zip(("p50", "p90", "p99", "max"), np.percentile(latency, (50, 90, 99, 100)), strict=True))
    return {
        "cameras": cameras,
        "fps": fps,
        "seconds": seconds,
        "results": results,
        "results_per_second": results / max(outcome.seconds for outcome in outcomes),
        "key_frames": sum(outcome.results["key"] for outcome in outcomes),
        **{name: sum(outcome.others[name] for outcome in outcomes) for name in ("dropped", "error", "unsent")},
        "latency": {name: float(value) for name, value in percentiles.items()},
    }


def _setting(model: str, version: str, backend: Any, width: int, height: int, interval: int) -> str:
    runs_on = f"{backend.name} {backend.precision} on {backend.device}"
    return f"{width}x{height}, interval {interval}, batch 1, model {model} {version}, {runs_on}"


def _size(path: Path) -> tuple[int, int]:
    from keywarp.client import open_source

    with open_source(path) as source:
        return source.width, source.height


def _print_json(figures: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(figures, indent=2))


def _print_table(title: str, rows: "Iterable[tuple[str, str]]", setting: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"keywarp bench {title}", title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(setting, style="dim")


def _print_histogram(latency: "Sequence[float]") -> None:
    """How many results took how long, in steps that double."""
    from rich.console import Console

    edges = [0.005 * 2**step for step in range(10)]
    counts = [0] * (len(edges) + 1)
    for value in latency:
        counts[sum(value > edge for edge in edges)] += 1
    console, most = Console(), max(counts)
    for count, edge in zip(counts, [*edges, None], strict=True):
        if count:
            name = f"<= {1000 * edge:.0f} ms" if edge else f"> {1000 * edges[-1]:.0f} ms"
            console.print(f"{name:>12} {count:>6} {'█' * round(40 * count / most)}")
