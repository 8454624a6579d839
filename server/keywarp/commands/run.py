"""`keywarp run`: process a source with an engine in this process."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Annotated

import numpy as np
import typer

from keywarp.cli.errors import CommandError
from keywarp.cli.folders import find_videos, process_one, process_videos
from keywarp.cli.options import (
    AllowDamageOption,
    AsStoredOption,
    CocoOption,
    HiddenOption,
    IntervalOption,
    JsonOption,
    MaxFpsOption,
    MotOption,
    NdjsonOption,
    OutOption,
    ParquetOption,
    SourceArgument,
    StoredVideoOption,
    TrackOption,
    open_frames,
    read_regions,
)
from keywarp.cli.parquet_file import parquet_opener
from keywarp.cli.report import record
from keywarp.cli.result_files import ResultFiles
from keywarp.cli.summary import Summary, print_notes
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
from keywarp.engines import (
    SLICES,
    DenseMap,
    Engine,
    EngineError,
    Executor,
    LabelMap,
    Manifest,
    MotionVectors,
    StreamSession,
)
from keywarp.engines.tracks import Tracker
from keywarp.protocol import MAX_INTERVAL, MAX_KEY_AGE, ClassInfo, Masks, Schedule, StreamOptions
from keywarp.server.errors import BadMessageError
from keywarp.server.models.keypoints import keypoints_info
from keywarp.server.streams.frame_rate import FrameRate
from keywarp.server.streams.hiding import Hidden
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
    max_fps: MaxFpsOption = None,
    hidden: HiddenOption = None,
    out: OutOption = None,
    ndjson: NdjsonOption = None,
    coco: CocoOption = None,
    mot: MotOption = None,
    parquet: ParquetOption = None,
    track: TrackOption = False,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    cpu_fallback: CpuFallbackOption = False,
    threads: ThreadsOption = 0,
    motion: MotionOption = None,
    as_stored: AsStoredOption = False,
    video: StoredVideoOption = None,
    allow_damage: AllowDamageOption = False,
    as_json: JsonOption = False,
) -> None:
    """Process a video without a server, with the same output as `keywarp stream`.

    Frames that are damaged or missing are left out and counted, and the exit status is then 1. The figures of
    --json say it, too: `missing` (their number, or the least that it can be) and `damage` (or null).

    Of a folder of videos, each has its own files. Videos whose files are all there are skipped, and a broken one
    doesn't stop the others.

    Example: keywarp run street.mp4 --model street --out annotated.mp4 --ndjson results.ndjson

    Example: keywarp run gate.mkv --video 1 --as-stored --allow-damage --ndjson results.ndjson

    Example: keywarp run videos --model street-detect --track --parquet results
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
    files = ResultFiles(out, ndjson, coco, mot, parquet)
    open_parquet = parquet_opener() if parquet else None
    regions = read_regions(hidden)
    videos = find_videos(source)
    try:
        slices = SLICES if stream_schedule.overlap else 1
        engine = Engine(bundle, backend, precision, threads, motion=motion, fallback=cpu_fallback, slices=slices)

        def process(name: str, files: ResultFiles, run: str | None = None) -> Summary:
            tracker = Tracker(detection.threshold) if track and detection else None
            with ExitStack() as opened:
                executor = Executor()
                opened.callback(executor.close)
                frames = opened.enter_context(
                    open_frames(name, as_stored=as_stored, video=video, vectors=engine.takes_vectors)
                )
                opened.callback(lambda: print_notes(name, frames.notes))
                engine.prepare(frames.height, frames.width)
                age, overlap = stream_schedule.max_age, stream_schedule.overlap
                session = StreamSession(engine, stream_schedule.open(), age, overlap)
                return record(
                    _process(
                        executor,
                        session,
                        frames,
                        tracker,
                        FrameRate(max_fps) if max_fps else None,
                        Hidden(regions),
                        masks=_masks(bundle.manifest, files),
                    ),
                    classes=[ClassInfo.model_validate(c.model_dump()) for c in bundle.manifest.classes],
                    keypoints=keypoints_info(bundle.manifest),
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
                    title=run or f"{bundle.name}, {stream_schedule}",
                    counted=lambda summary: replace(summary, missing=frames.missing, notes=frames.notes),
                )

        if videos:
            process_videos(videos, files, process, as_json=as_json)
        else:
            process_one(source, files, process, as_json=as_json)
    except EngineError as error:
        raise CommandError(str(error)) from error


def _masks(manifest: Manifest, files: ResultFiles) -> Masks:
    """Return the form of masks in wire results: objects' masks for all that shows them, other maps for some files only.

    Parquet files have masks as run lengths, as far as they have any, and label maps and dense maps as PNG.
    """
    needed = [files.ndjson, files.parquet]
    if manifest.task == "detection":
        needed += [files.out, files.coco]
    return "none" if all(file is None for file in needed) else "png"


def _process(
    executor: Executor,
    session: StreamSession,
    frames: Source,
    tracker: Tracker | None,
    rate: FrameRate | None,
    hidden: Hidden,
    masks: Masks,
) -> Iterator[ProcessedFrame]:
    """Process every frame.

    Args:
        executor: Runs the session.
        session: The session that processes the frames.
        frames: The frames.
        tracker: The tracker of the objects, or None.
        rate: Chooses the frames to process, or None for all.
        hidden: The regions of frames that are made black.
        masks: The form of masks in the wire results. Label maps and dense maps are always available as arrays.

    Yields:
        The results. Their latency is the time from the decoded frame to the wire result.
    """
    manifest = session.engine.bundle.manifest
    classes = tuple(ClassInfo.model_validate(c.model_dump()) for c in manifest.classes)
    asked = time.perf_counter()
    vectors: list[MotionVectors | None] = []  # of the frames since the last one that was processed
    gap = False
    for index, frame in enumerate(frames):
        started = time.perf_counter()
        vectors.append(motion_vectors(frame))
        gap = gap or frame.gap
        if rate and not rate.takes(index / frames.fps if frame.timestamp is None else frame.timestamp):
            continue
        image, skipped = np.asarray(hidden.cover(frame.image)), len(vectors) - 1
        found = executor.submit(session, image, index, skipped, vectors, frame.timestamp, gap=gap).result()
        vectors, gap = [], False
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
        yield ProcessedFrame(result, image, latency, label_map=label_map, value_map=value_map, classes=classes)
        asked = time.perf_counter()
