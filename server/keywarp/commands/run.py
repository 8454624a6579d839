"""`keywarp run`: a source through an engine in this process."""

from typing import TYPE_CHECKING, Annotated, cast

import typer

from keywarp.cli.errors import CommandError
from keywarp.cli.options import (
    CocoOption,
    IntervalOption,
    MotOption,
    NdjsonOption,
    SourceArgument,
    SummaryJsonOption,
    VideoOption,
)
from keywarp.commands.models import MODELS, Folder, find_bundle
from keywarp.commands.motion import Motion, MotionOption
from keywarp.commands.runtime import BackendOption, FallbackOption, PrecisionOption
from keywarp.protocol import MAX_INTERVAL, Masks, Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keywarp.client import ProcessedFrame, Source
    from keywarp.engines import BackendName, Precision, StreamSession


def run(
    source: SourceArgument,
    model: Annotated[str, typer.Option(help="A bundle of the models folder, or a bundle's own folder.")] = "street",
    models: Folder = MODELS,
    interval: IntervalOption = None,
    schedule: Annotated[
        Schedule,
        typer.Option(help="A key frame every INTERVAL frames, or where the content changes, INTERVAL in the mean."),
    ] = "fixed",
    max_interval: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_INTERVAL, help="With adaptive: the longest interval (default: 3 x INTERVAL)."),
    ] = None,
    out: VideoOption = None,
    ndjson: NdjsonOption = None,
    coco: CocoOption = None,
    mot: MotOption = None,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    cpu_fallback: FallbackOption = False,
    threads: Annotated[int, typer.Option(min=0, help="Of the inference; 0: the backend decides.")] = 0,
    motion: MotionOption = Motion.NETWORK,
    summary_json: SummaryJsonOption = False,
) -> None:
    """Do what `keywarp stream` does without a server.

    Example: keywarp run street.mp4 --model street --out annotated.mp4 --json results.ndjson
    """
    import json

    from rich.console import Console

    from keywarp.cli.report import record
    from keywarp.cli.summary import summary_table
    from keywarp.client import open_source
    from keywarp.engines import Engine, EngineError, StreamSession
    from keywarp.protocol import ClassInfo, StreamOptions
    from keywarp.server.errors import BadMessageError
    from keywarp.server.streams.schedule import resolve_schedule

    bundle = find_bundle(model, models)
    options = StreamOptions(interval=interval, schedule=schedule, max_interval=max_interval)
    try:
        stream_schedule = resolve_schedule(options, "fixed", bundle.manifest.key_interval)
    except BadMessageError as error:
        raise typer.BadParameter(str(error), param_hint="--max-interval") from error
    try:
        with open_source(source) as frames:
            engine = Engine(
                bundle,
                cast("BackendName", backend),
                cast("Precision", precision),
                threads,
                motion=motion.value,
                fallback=cpu_fallback,
            )
            engine.prepare(frames.height, frames.width)
            session = StreamSession(engine, stream_schedule.open())
            summary = record(
                _results(session, frames, masks="none" if ndjson is None else "png"),
                classes=[ClassInfo.model_validate(c.model_dump()) for c in bundle.manifest.classes],
                fps=frames.fps,
                out=out,
                json=ndjson,
                coco=coco,
                mot=mot,
                total=frames.count,
                title=f"{bundle.name}, {stream_schedule}",
            )
    except EngineError as error:
        raise CommandError(str(error)) from error
    if summary_json:
        typer.echo(json.dumps(summary.as_dict()))
    else:
        Console().print(summary_table([summary]))


def _results(session: "StreamSession", frames: "Source", masks: Masks) -> "Iterator[ProcessedFrame]":
    """Process every frame.

    Args:
        session: The session that processes the frames.
        frames: The frames.
        masks: How the wire results hold their masks. The label maps are given as arrays in any case.

    Yields:
        The results. Their latency is the time from the decoded frame to the wire result.
    """
    import time

    from keywarp.client import ProcessedFrame
    from keywarp.engines import Segmentation
    from keywarp.server.streams.results import encode_result

    classes = session.engine.bundle.manifest.classes
    asked = time.perf_counter()
    for frame in frames:
        started = time.perf_counter()
        found = session.process(frame.image)
        result = encode_result(
            found, classes, stream="run", decode=started - asked, waited=0.0, timestamp=frame.timestamp, masks=masks
        )
        latency = time.perf_counter() - started
        label_map = found.output.labels if isinstance(found.output, Segmentation) else None
        yield ProcessedFrame(result, frame.image, latency, label_map=label_map)
        asked = time.perf_counter()
