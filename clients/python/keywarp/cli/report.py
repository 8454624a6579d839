"""Record results: show a progress bar, write files and an annotated video, and measure."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from json import dumps
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keywarp.cli.errors import CommandError
from keywarp.cli.files import part_file, write_errors
from keywarp.cli.stopwatch import Stopwatch
from keywarp.cli.summary import Summary
from keywarp.client.drawing import Annotator
from keywarp.client.errors import DrawingError, SourceError
from keywarp.client.exports import CocoWriter, to_mot
from keywarp.client.results import ProcessedFrame
from keywarp.client.writing import VideoWriter
from keywarp.protocol import ClassInfo, KeypointsInfo

Write = Callable[[ProcessedFrame], None]


class DamageError(CommandError):
    """The source is damaged, which isn't allowed.

    Attributes:
        summary: The figures of what was read.
    """

    def __init__(self, text: str, summary: Summary) -> None:
        super().__init__(text)
        self.summary = summary


def record(
    results: Iterable[ProcessedFrame],
    *,
    classes: Iterable[ClassInfo],
    keypoints: KeypointsInfo | None = None,
    fps: float,
    start: float | None = None,
    aspect: Fraction = Fraction(1),
    allow_damage: bool = False,
    out: Path | None = None,
    json: Path | None = None,
    coco: Path | None = None,
    mot: Path | None = None,
    others: Mapping[Path, Callable[[Path], AbstractContextManager[Write]]] | None = None,
    tracked: bool = False,
    total: int | None = None,
    title: str = "frames",
    counted: Callable[[Summary], Summary] = lambda summary: summary,
) -> Summary:
    """Iterate over all results, write them to files, and measure.

    A file gets its name only when it is complete. An interrupted run leaves the file `NAME.part`, which is valid up to
    its end.

    Args:
        results: The results of a stream, or of a run in this process.
        classes: The model's classes, for their colours and names.
        keypoints: The model's keypoints, if its objects have any.
        fps: Frames per second of the annotated video, for results without a timestamp.
        start: The timestamp in seconds at which the annotated video begins, or None for that of the first result.
        aspect: The width of the annotated video's pixels relative to their height.
        allow_damage: Whether the files are completed even if the source is damaged. A message on stderr says what is
            missing.
        out: An MP4 file for the annotated video, which needs results with images.
        json: An NDJSON file. Each line is the wire `Result` of one frame and its `latency` in seconds.
        coco: A COCO file of all frames.
        mot: A MOTChallenge file of the boxes on all frames.
        others: Further files, with what opens each under its temporary name and writes to it.
        tracked: Whether objects have track ids, which `mot` then has, too.
        total: The number of results to expect, for the progress bar.
        title: The name of the run, for the progress bar and the summary.
        counted: Adds to the figures what the source knows at its end, such as what is missing.

    Returns:
        The figures of the run.

    Raises:
        CommandError: If a file can't be written, or can't hold the results: `mot` needs boxes, and `coco` objects or
            classes.
        DrawingError: If the extra `draw` isn't installed, or results have no image to draw on.
        DamageError: If the source is damaged, with figures of what was read.
        SourceError: If nothing of it could be read.
    """
    stopwatch = Stopwatch(title)
    with ExitStack() as opened:
        advance = opened.enter_context(_progress_bar(title, total))
        writers: dict[Path, Write] = {}
        if json is not None:
            writers[json] = opened.enter_context(_ndjson_file(json))
        if coco is not None:
            writers[coco] = opened.enter_context(_coco_file(coco, classes, keypoints))
        if mot is not None:
            writers[mot] = opened.enter_context(_mot_file(mot, tracked))
        for path, open_file in (others or {}).items():
            writers[path] = opened.enter_context(_other_file(path, open_file))
        if out is not None:
            writers[out] = opened.enter_context(_annotated_video(out, classes, keypoints, fps, start, aspect))
        try:
            for result in stopwatch.timed(results):
                for path, write in writers.items():
                    with write_errors(path):
                        write(result)
                advance(result)
        except SourceError as error:
            summary = counted(stopwatch.summary())
            if not summary.frames:
                raise
            summary = replace(summary, missing=max(summary.missing, 1), damage=str(error))
            if not allow_damage:
                raise DamageError(str(error), summary) from error
            print(f"keywarp: {error}", file=sys.stderr)
            return summary
        summary = counted(stopwatch.summary())
        if not summary.frames:
            raise CommandError("no frame of the source could be processed")
    return summary


@contextmanager
def _progress_bar(title: str, total: int | None) -> Iterator[Write]:
    """Show a progress bar on stderr, if stderr is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda _: progress.advance(task)


@contextmanager
def _ndjson_file(path: Path) -> Iterator[Write]:
    """Write an NDJSON file."""
    with part_file(path) as part, part.open("w", encoding="utf-8") as file:

        def write(result: ProcessedFrame) -> None:
            file.write(dumps(result.result.model_dump(mode="json") | {"latency": result.latency}) + "\n")

        yield write


@contextmanager
def _coco_file(path: Path, classes: Iterable[ClassInfo], keypoints: KeypointsInfo | None) -> Iterator[Write]:
    """Write a COCO file."""
    with part_file(path) as part, CocoWriter(part, classes, keypoints) as file:

        def write(result: ProcessedFrame) -> None:
            try:
                file.write(result)
            except ValueError as error:
                raise CommandError(str(error)) from error

        yield write


@contextmanager
def _mot_file(path: Path, tracked: bool) -> Iterator[Write]:
    """Write a MOTChallenge file."""
    with part_file(path) as part, part.open("w", encoding="utf-8") as file:

        def write(result: ProcessedFrame) -> None:
            try:
                file.writelines(line + "\n" for line in to_mot(result, tracked=tracked))
            except ValueError as error:
                raise CommandError(str(error)) from error

        yield write


@contextmanager
def _other_file(path: Path, open_file: Callable[[Path], AbstractContextManager[Write]]) -> Iterator[Write]:
    """Write a file of a format that this package doesn't know."""
    with part_file(path) as part, open_file(part) as write:
        yield write


@contextmanager
def _annotated_video(
    path: Path,
    classes: Iterable[ClassInfo],
    keypoints: KeypointsInfo | None,
    fps: float,
    start: float | None,
    aspect: Fraction,
) -> Iterator[Write]:
    """Write an annotated video."""
    annotator = Annotator(classes, keypoints=keypoints)
    with part_file(path) as part, VideoWriter(part, fps, start=start, aspect=aspect) as video:

        def write(result: ProcessedFrame) -> None:
            if result.image is None:
                raise DrawingError(f"frame {result.frame} can't be drawn: its image was never decoded here")
            video.write(annotator.annotate(result.image, result), result.result.timestamp)

        yield write
