"""`keywarp demo`: measure the speed-up by key frames, with a real server process and a real video."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from keywarp.cli.errors import CommandError
from keywarp.cli.options import AsStoredOption, JsonOption
from keywarp.cli.report import record
from keywarp.cli.summary import print_notes, summary_table
from keywarp.client import Client, ProcessedFrame, open_source
from keywarp.commands.local_server import local_server
from keywarp.commands.options import MODELS, InputVideoOption, ModelOption, ModelsOption
from keywarp.commands.sample_video import sample_video


def demo(
    model: ModelOption = "street",
    models: ModelsOption = MODELS,
    video: InputVideoOption = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("out"),
    as_stored: AsStoredOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stream a video through a server on this machine, with key frames and per frame, and compare their speed.

    Writes the annotated video and the results to OUT, after measuring.

    Example: keywarp demo --out out
    """
    path = video or sample_video()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{str(out)!r} can't be made: {error.strerror}") from error
    with local_server(models) as url, Client(url) as client:
        info = client.model(model)
        with open_source(path, upright=not as_stored) as source:
            fps, count = source.fps, source.count
            print_notes(str(path), source.notes)
        upright = False if as_stored else None
        with client.stream(
            path, model=model, upright=upright
        ) as warm_up:  # compiles the networks for the size of the frames
            next(iter(warm_up))
        kept: list[ProcessedFrame] = []
        with client.stream(path, model=model, upright=upright) as results:
            keyed = record(
                _keep(results, kept), classes=info.classes, fps=fps, total=count, title=f"interval {info.key_interval}"
            )
        with client.stream(path, model=model, upright=upright, interval=1) as results:
            per_frame = record(results, classes=info.classes, fps=fps, total=count, title="per frame (interval 1)")
    annotated, lines = out / f"{path.stem}.mp4", out / f"{path.stem}.ndjson"
    record(kept, classes=info.classes, fps=fps, out=annotated, json=lines, total=len(kept), title="drawing")

    if keyed.frames != per_frame.frames:
        raise CommandError(
            f"interval {info.key_interval} gave {keyed.frames} results, but interval 1 gave {per_frame.frames}"
        )
    speed_up = keyed.fps / per_frame.fps
    first = kept[0].result
    if as_json:
        figures = {"keyed": keyed.as_dict(), "per_frame": per_frame.as_dict(), "speed_up": speed_up}
        typer.echo(json.dumps(figures | {"model": info.model_dump(exclude={"classes"})}, indent=2))
        return
    console = Console()
    console.print(summary_table([keyed, per_frame]))
    console.print(
        f"{speed_up:.1f} times as fast as per-frame evaluation: {path.name}, {first.width}x{first.height}, "
        f"model {info.name} {info.version}, {info.backend} {info.precision} on {info.device}."
    )
    console.print(
        "The fps are of one stream over WebSocket, and include decoding and JPEG on both sides. The latency is the "
        "time from sending a frame to its result, with two frames in flight.",
        style="dim",
    )
    console.print(f"{annotated}\n{lines}")


def _keep(results: Iterable[ProcessedFrame], kept: list[ProcessedFrame]) -> Iterator[ProcessedFrame]:
    """Pass the results on, and keep them for drawing."""
    for result in results:
        kept.append(result)
        yield result
