"""`keywarp run`: process a source with an engine in this process."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from keywarp.cli.errors import CommandError
from keywarp.cli.options import (
    AllowDamageOption,
    AsStoredOption,
    CocoOption,
    IntervalOption,
    MotOption,
    NdjsonOption,
    SourceArgument,
    StoredVideoOption,
    SummaryJsonOption,
    TrackOption,
    VideoOption,
    open_frames,
)
from keywarp.cli.report import DamageError, record
from keywarp.cli.summary import print_notes, print_summary
from keywarp.client import ProcessedFrame, Source
from keywarp.clips.motion_vectors import motion_vectors
from keywarp.commands.bundles import find_bundle
from keywarp.commands.options import (
    MODELS,
    BackendOption,
    BundleOption,
    CpuFallbackOption,
    ModelsOption,
    MotionOption,
    PrecisionOption,
    ThreadsOption,
)
from keywarp.engines import SLICES, DenseMap, Engine, EngineError, Executor, LabelMap, Manifest, StreamSession
from keywarp.engines.tracks import Tracker
from keywarp.protocol import MAX_INTERVAL, MAX_KEY_AGE, ClassInfo, Masks, Schedule, StreamOptions
from keywarp.server.errors import BadMessageError
from keywarp.server.models.keypoints import keypoints_info
from keywarp.server.streams.results import encode_result
from keywarp.server.streams.schedule import resolve_schedule


def run(
    source: SourceArgument,
    model: BundleOption = "street",
    models: ModelsOption = MODELS,
    interval: IntervalOption = None,
    schedule: Annotated[
        Schedule,
        typer.Option(
            help="The key schedule: fixed makes every INTERVAL-th frame a key frame; adaptive places key frames where "
            "the content changes, every INTERVAL frames on average."
        ),
    ] = "fixed",
    max_interval: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_INTERVAL,
            help="The longest interval of the adaptive schedule.",
            show_default="3 x INTERVAL",
        ),
    ] = None,
    max_age: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=MAX_KEY_AGE,
            help="The greatest age of a key frame: if it is older, the next frame is a key frame.",
            metavar="SECONDS",
            show_default="no limit",
        ),
    ] = None,
    overlap: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_INTERVAL,
            help="Frames by which key frames overlap with others: the next is computed between them, so no frame takes "
            "long, but key frames are older. Less than the interval.",
        ),
    ] = 0,
    out: VideoOption = None,
    ndjson: NdjsonOption = None,
    coco: CocoOption = None,
    mot: MotOption = None,
    track: TrackOption = False,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    cpu_fallback: CpuFallbackOption = False,
    threads: ThreadsOption = 0,
    motion: MotionOption = None,
    as_stored: AsStoredOption = False,
    video: StoredVideoOption = None,
    allow_damage: AllowDamageOption = False,
    summary_json: SummaryJsonOption = False,
) -> None:
    """Process a video without a server, with the same output as `keywarp stream`.

    Frames that are damaged or missing are left out and counted, and the exit status is then 1. The figures of
    --summary-json say it, too: `missing` (their number, or the least that it can be) and `damage` (or null).

    Example: keywarp run street.mp4 --model street --out annotated.mp4 --json results.ndjson

    Example: keywarp run gate.mkv --video 1 --as-stored --allow-damage --json results.ndjson
    """
    bundle = find_bundle(model, models)
    options = StreamOptions(
        interval=interval, schedule=schedule, max_interval=max_interval, max_age=max_age, overlap=overlap
    )
    try:
        stream_schedule = resolve_schedule(options, "fixed", bundle.manifest.key_interval)
    except BadMessageError as error:
        raise typer.BadParameter(str(error)) from error
    detection = bundle.manifest.detection
    if track and detection is None:
        raise typer.BadParameter(f"{bundle.name} detects no objects: choose a detector", param_hint="--track")
    tracker = Tracker(detection.threshold) if track and detection else None
    try:
        slices = SLICES if stream_schedule.overlap else 1
        engine = Engine(bundle, backend, precision, threads, motion=motion, fallback=cpu_fallback, slices=slices)
        with ExitStack() as opened:
            executor = Executor()
            opened.callback(executor.close)
            frames = opened.enter_context(
                open_frames(source, as_stored=as_stored, video=video, vectors=engine.takes_vectors)
            )
            opened.callback(lambda: print_notes(source, frames.notes))
            engine.prepare(frames.height, frames.width)
            session = StreamSession(engine, stream_schedule.open(), stream_schedule.max_age, stream_schedule.overlap)
            summary = record(
                _process(executor, session, frames, tracker, masks=_masks(bundle.manifest, ndjson, out, coco)),
                classes=[ClassInfo.model_validate(c.model_dump()) for c in bundle.manifest.classes],
                keypoints=keypoints_info(bundle.manifest),
                fps=frames.fps,
                start=frames.start,
                aspect=frames.aspect,
                allow_damage=allow_damage,
                out=out,
                json=ndjson,
                coco=coco,
                mot=mot,
                tracked=track,
                total=frames.count,
                title=f"{bundle.name}, {stream_schedule}",
                counted=lambda summary: replace(summary, missing=frames.missing, notes=frames.notes),
            )
    except EngineError as error:
        raise CommandError(str(error)) from error
    except DamageError as error:
        print_summary(error.summary, as_json=summary_json)
        raise CommandError(f"{error}. --allow-damage keeps what was read") from error
    print_summary(summary, as_json=summary_json)


def _masks(manifest: Manifest, ndjson: Path | None, out: Path | None, coco: Path | None) -> Masks:
    """Return the form of masks in wire results: objects' masks for all that shows them, other maps for NDJSON only."""
    needed = [ndjson, out, coco] if manifest.task == "detection" else [ndjson]
    return "none" if all(file is None for file in needed) else "png"


def _process(
    executor: Executor, session: StreamSession, frames: Source, tracker: Tracker | None, masks: Masks
) -> Iterator[ProcessedFrame]:
    """Process every frame.

    Args:
        executor: Runs the session.
        session: The session that processes the frames.
        frames: The frames.
        tracker: The tracker of the objects, or None.
        masks: The form of masks in the wire results. Label maps and dense maps are always available as arrays.

    Yields:
        The results. Their latency is the time from the decoded frame to the wire result.
    """
    manifest = session.engine.bundle.manifest
    asked = time.perf_counter()
    for frame in frames:
        started = time.perf_counter()
        vectors = (motion_vectors(frame),)
        found = executor.submit(
            session, frame.image, vectors=vectors, timestamp=frame.timestamp, gap=frame.gap
        ).result()
        if tracker:
            found = tracker.update(found, frame.timestamp)
        result = encode_result(
            found,
            manifest.classes,
            stream="run",
            decode=started - asked,
            waited=0.0,
            timestamp=frame.timestamp,
            masks=masks,
            background=manifest.background,
            dense=manifest.dense,
        )
        latency = time.perf_counter() - started
        label_map = found.output.labels if isinstance(found.output, LabelMap) else None
        value_map = found.output.values if isinstance(found.output, DenseMap) else None
        yield ProcessedFrame(result, frame.image, latency, label_map=label_map, value_map=value_map)
        asked = time.perf_counter()
