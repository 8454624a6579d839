"""`keywarp stream`: send a source to a server."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any

import typer

from keywarp.cli.folders import find_videos, process_one, process_videos
from keywarp.cli.options import (
    AllowDamageOption,
    ApiKeyOption,
    AsStoredOption,
    CocoOption,
    HiddenOption,
    IntervalOption,
    JsonOption,
    MaxAgeOption,
    MaxFpsOption,
    MotOption,
    NdjsonOption,
    OutOption,
    OverlapOption,
    ParquetOption,
    ServerOption,
    SourceArgument,
    StoredVideoOption,
    TrackOption,
    open_client,
    open_frames,
    read_regions,
)
from keywarp.cli.parquet_file import parquet_opener
from keywarp.cli.report import record
from keywarp.cli.result_files import ResultFiles
from keywarp.cli.summary import Summary, print_notes
from keywarp.client import (
    DEFAULT_SERVER,
    ApiError,
    Client,
    MediaError,
    ProcessedFrame,
    ResultStream,
    Source,
    SourceError,
    UnavailableError,
)
from keywarp.client.reconnecting import DEFAULT
from keywarp.protocol import MAX_INTERVAL, Codec, Mode, Schedule
from keywarp.protocol.addresses import hide_secrets

IN_FLIGHT, QUALITY = 2, 90


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
            help="Key frames every INTERVAL frames, or where the content changes with INTERVAL as their mean distance "
            "(default: the server's).",
            show_default=False,
        ),
    ] = None,
    max_interval: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_INTERVAL,
            help="The longest interval of the adaptive schedule (default: 3 x INTERVAL).",
            show_default=False,
        ),
    ] = None,
    max_age: MaxAgeOption = None,
    overlap: OverlapOption = None,
    max_fps: MaxFpsOption = None,
    hidden: HiddenOption = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="latest, for cameras, drops waiting frames when a newer one arrives (default: lossless).",
            show_default=False,
        ),
    ] = None,
    out: OutOption = None,
    ndjson: NdjsonOption = None,
    coco: CocoOption = None,
    mot: MotOption = None,
    parquet: ParquetOption = None,
    track: TrackOption = False,
    codec: Annotated[
        Codec, typer.Option(help="Send JPEG images, a file's own packets (h264, ...) or the file as it is (mp4, ...).")
    ] = "image",
    in_flight: Annotated[
        int | None,
        typer.Option(
            min=1, help="JPEG images in flight at a time; 1 gives the lowest latency.", show_default=str(IN_FLIGHT)
        ),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="The quality of the JPEG images.", show_default=str(QUALITY))
    ] = None,
    reconnect: Annotated[
        float,
        typer.Option(
            min=0,
            help="How long to try to reconnect after the connection breaks; 0 never reconnects.",
            metavar="SECONDS",
        ),
    ] = DEFAULT.seconds,
    as_stored: AsStoredOption = False,
    video: StoredVideoOption = None,
    allow_damage: AllowDamageOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send a video to a server, write its results to files, and print how fast they came.

    Frames that are damaged or missing are left out and counted, and the exit status is then 1. The figures of
    --json say it, too: `missing` (their number, or the least that it can be) and `damage` (or null).

    Of a folder of videos, each is sent as a stream of its own, with its own files. Videos whose files are all there
    are skipped, and a broken one doesn't stop the others.

    The figures leave out time in which only drawing and writing took place. But both take
    processor time from a server on this machine, so measure without --out.

    Example: keywarp stream street.mp4 --out annotated.mp4 --ndjson results.ndjson

    Example: keywarp stream gate.mkv --codec h264 --video 1 --as-stored --allow-damage --ndjson results.ndjson

    Example: keywarp stream rtsp://192.168.7.20/stream1 --mode latest --max-fps 5 --hidden '0,0 1,0 1,0.2 0,0.2'

    Example: keywarp stream videos --ndjson results --out annotated
    """
    images = codec == "image"
    for name, value in (("--in-flight", in_flight), ("--quality", quality)):
        if value is not None and not images:
            raise typer.BadParameter(f"means nothing for --codec {codec}, which sends no JPEG images", param_hint=name)
    files = ResultFiles(out, ndjson, coco, mot, parquet)
    open_parquet = parquet_opener() if parquet else None
    regions = read_regions(hidden)
    videos = find_videos(source)
    with open_client(server, api_key) as client, _warnings_on_stderr():

        def process(name: str, files: ResultFiles, run: str | None = None) -> Summary:
            with ExitStack() as opened:
                frames = opened.enter_context(open_frames(name, as_stored=as_stored, video=video))
                results = opened.enter_context(
                    _begin(
                        client,
                        frames if images else name,
                        model=model,
                        interval=interval,
                        schedule=schedule,
                        max_interval=max_interval,
                        max_age=max_age,
                        overlap=overlap,
                        max_fps=max_fps,
                        hidden=regions,
                        mode=mode,
                        track=True if track else None,
                        upright=False if as_stored and not images else None,  # servers of before don't know the option
                        video=None if images else video,
                        codec=codec,
                        in_flight=in_flight or IN_FLIGHT,
                        quality=quality or QUALITY,
                        decode=files.out is not None,
                        on_error="skip",
                        reconnect=reconnect,
                    )
                )
                opened.callback(lambda: print_notes(name, results.notes))
                ready = results.ready
                adaptive = "" if ready.schedule == "fixed" else f"{ready.schedule} "

                def counted(summary: Summary) -> Summary:
                    notes = tuple(results.notes)
                    return replace(summary, reconnects=results.reconnects, missing=results.missing, notes=notes)

                return record(
                    _complete(results, name),
                    classes=ready.model.classes,
                    keypoints=ready.model.keypoints,
                    fps=frames.fps,
                    start=frames.start,
                    aspect=frames.aspect,
                    allow_damage=allow_damage,
                    out=files.out,
                    json=files.ndjson,
                    coco=files.coco,
                    mot=files.mot,
                    others={files.parquet: open_parquet} if files.parquet and open_parquet else {},
                    tracked=track,
                    total=None if max_fps else frames.count,
                    title=run or f"{ready.model.name}, {adaptive}interval {ready.interval}",
                    counted=counted,
                )

        if videos:
            process_videos(videos, files, process, as_json=as_json)
        else:
            process_one(source, files, process, as_json=as_json)


def _begin(client: Client, source: Source | str, *, reconnect: float, **options: Any) -> ResultStream:
    """Begin a stream. If the server has only just started, wait for its models, as long as reconnecting may take."""
    try:
        return client.stream(source, reconnect=reconnect, **options)
    except UnavailableError as error:
        try:
            client.wait_until_ready(0)
        except ApiError as busy:
            if busy.status != HTTPStatus.SERVICE_UNAVAILABLE or not reconnect:
                raise error from busy
        else:
            raise  # it is ready, and refuses for another reason
    print("keywarp: the server is still loading its models", file=sys.stderr)
    client.wait_until_ready(reconnect)
    return client.stream(source, reconnect=reconnect, **options)


def _complete(results: ResultStream, name: str) -> Iterator[ProcessedFrame]:
    """Pass the results on.

    Raises:
        SourceError: If the server could not process all frames, or a container's video ends too early for it.
    """
    try:
        yield from results
    except MediaError as error:
        raise SourceError(str(error)) from error
    if results.skipped:
        raise SourceError(
            f"{results.skipped} frames of {hide_secrets(name)!r} could not be processed ({results.first_error})"
        )


class _StderrHandler(logging.Handler):
    """A handler that prints to the current `sys.stderr`, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"keywarp: {hide_secrets(record.getMessage())}", file=sys.stderr)


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Print the client's warnings to stderr, such as one about a broken connection."""
    log, handler = logging.getLogger("keywarp.client"), _StderrHandler(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
