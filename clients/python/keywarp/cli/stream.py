"""`keywarp stream`: a source through a server."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from keywarp.cli.options import (
    ApiKeyOption,
    CocoOption,
    IntervalOption,
    MotOption,
    NdjsonOption,
    ServerOption,
    SourceArgument,
    SummaryJsonOption,
    VideoOption,
)
from keywarp.cli.report import record
from keywarp.cli.summary import summary_table
from keywarp.client import DEFAULT_SERVER, Client, open_source
from keywarp.client.reconnecting import DEFAULT
from keywarp.protocol import MAX_INTERVAL, Codec, Mode, Schedule


def stream(
    source: SourceArgument,
    server: ServerOption = DEFAULT_SERVER,
    api_key: ApiKeyOption = None,
    model: Annotated[
        str | None, typer.Option(help="The model's name (default: the server's).", show_default=False)
    ] = None,
    interval: IntervalOption = None,
    schedule: Annotated[
        Schedule | None,
        typer.Option(
            help="A key frame every INTERVAL frames, or where the content changes, INTERVAL in the mean (default: the "
            "server's).",
            show_default=False,
        ),
    ] = None,
    max_interval: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_INTERVAL,
            help="The longest interval: with adaptive (default: 3 x INTERVAL), or where latest drops frames.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="latest: frames that wait when a newer one comes are dropped, for cameras (default: lossless).",
            show_default=False,
        ),
    ] = None,
    out: VideoOption = None,
    ndjson: NdjsonOption = None,
    coco: CocoOption = None,
    mot: MotOption = None,
    codec: Annotated[
        Codec, typer.Option(help="Send JPEG images, a file's own packets (h264, ...) or the file as it is (mp4, ...).")
    ] = "image",
    in_flight: Annotated[int, typer.Option(min=1, help="Images on the way at a time; 1 for the lowest latency.")] = 2,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEG images.")] = 90,
    reconnect: Annotated[
        float,
        typer.Option(
            min=0,
            help="How long to try to connect again after a break; 0: not at all.",
            metavar="SECONDS",
        ),
    ] = DEFAULT.seconds,
    summary_json: SummaryJsonOption = False,
) -> None:
    """Send a video to a server; write down the results and print how fast they came.

    Time that only drawing and writing took is left out of the figures. Still, both take
    processor time from a server on this machine: measure without --out.
    """
    with ExitStack() as opened:
        try:
            client = opened.enter_context(Client(server, api_key=api_key))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--server") from error
        opened.enter_context(_breaks_shown())
        frames = opened.enter_context(open_source(source))
        results = opened.enter_context(
            client.stream(
                frames if codec == "image" else source,
                model=model,
                interval=interval,
                schedule=schedule,
                max_interval=max_interval,
                mode=mode,
                codec=codec,
                in_flight=in_flight,
                quality=quality,
                decode=out is not None,
                reconnect=reconnect,
            )
        )
        ready = results.ready
        adaptive = "" if ready.schedule == "fixed" else f"{ready.schedule} "
        summary = record(
            results,
            classes=ready.model.classes,
            fps=frames.fps,
            out=out,
            json=ndjson,
            coco=coco,
            mot=mot,
            total=frames.count,
            title=f"{ready.model.name}, {adaptive}interval {ready.interval}",
        )
        summary = replace(summary, reconnects=results.reconnects)
    if summary_json:
        typer.echo(json.dumps(summary.as_dict()))
    else:
        Console().print(summary_table([summary]))


class _Shown(logging.Handler):
    """Prints to whatever stderr is at the time: a progress bar stands in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"keywarp: {record.getMessage()}", file=sys.stderr)


@contextmanager
def _breaks_shown() -> Iterator[None]:
    """Show on stderr what the client warns of: that the connection broke, and that it tries again."""
    log, shown = logging.getLogger("keywarp.client"), _Shown(logging.WARNING)
    log.addHandler(shown)
    try:
        yield
    finally:
        log.removeHandler(shown)
