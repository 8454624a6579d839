"""Taking results in: a progress bar, an NDJSON file, an annotated video, and the figures."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from json import dumps
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keywarp.cli.errors import CommandError
from keywarp.cli.partial import partial, writing
from keywarp.cli.stopwatch import Stopwatch
from keywarp.cli.summary import Summary
from keywarp.client.drawing import Annotator
from keywarp.client.errors import DrawingError
from keywarp.client.exports import CocoWriter, to_mot
from keywarp.client.results import ProcessedFrame
from keywarp.client.writing import VideoWriter
from keywarp.protocol import ClassInfo

Sink = Callable[[ProcessedFrame], None]


def record(
    results: Iterable[ProcessedFrame],
    *,
    classes: Iterable[ClassInfo],
    fps: float,
    out: Path | None = None,
    json: Path | None = None,
    coco: Path | None = None,
    mot: Path | None = None,
    total: int | None = None,
    title: str = "frames",
) -> Summary:
    """Take all results, write them down, and measure.

    Files have their names only when they are complete; a run that is broken off leaves `NAME.part`, which is valid as
    far as it goes.

    Args:
        results: What a stream gives, or a run in this process.
        classes: Of the model, for their colours.
        fps: Of the video to write.
        out: An MP4 file for the annotated video; needs results with images.
        json: An NDJSON file: a line for each frame, its `Result` as it came and its `latency` in seconds.
        coco: A COCO file of all frames.
        mot: A MOTChallenge file of all frames' boxes.
        total: How many results to expect, for the progress bar.
        title: What is run, for the progress bar and the summary.

    Returns:
        The figures; see `Summary` for what counts.

    Raises:
        CommandError: A file can't be written, or results have no boxes for `mot`.
        DrawingError: The extra `draw` isn't installed, or results have no image to draw on.
    """
    stopwatch = Stopwatch(title)
    with ExitStack() as opened:
        advance = opened.enter_context(_bar(title, total))
        sinks: dict[Path, Sink] = {}
        if json is not None:
            sinks[json] = opened.enter_context(_lines(json))
        if coco is not None:
            sinks[coco] = opened.enter_context(_coco(coco, classes))
        if mot is not None:
            sinks[mot] = opened.enter_context(_boxes(mot))
        if out is not None:
            sinks[out] = opened.enter_context(_film(out, classes, fps))
        for result in stopwatch.timed(results):
            for path, sink in sinks.items():
                with writing(path):
                    sink(result)
            advance(result)
        summary = stopwatch.summary()
        if not summary.frames:
            raise CommandError("no frame came through")
    return summary


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Sink]:
    """Show a progress bar on stderr, if that is a terminal."""
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
def _lines(path: Path) -> Iterator[Sink]:
    """Write an NDJSON file."""
    with partial(path) as part, part.open("w", encoding="utf-8") as file:

        def write(result: ProcessedFrame) -> None:
            file.write(dumps(result.result.model_dump(mode="json") | {"latency": result.latency}) + "\n")

        yield write


@contextmanager
def _coco(path: Path, classes: Iterable[ClassInfo]) -> Iterator[Sink]:
    """Write a COCO file."""
    with partial(path) as part, CocoWriter(part, classes) as file:
        yield file.write


@contextmanager
def _boxes(path: Path) -> Iterator[Sink]:
    """Write a MOTChallenge file."""
    with partial(path) as part, part.open("w", encoding="utf-8") as file:

        def write(result: ProcessedFrame) -> None:
            try:
                file.writelines(line + "\n" for line in to_mot(result))
            except ValueError as error:
                raise CommandError(str(error)) from error

        yield write


@contextmanager
def _film(path: Path, classes: Iterable[ClassInfo], fps: float) -> Iterator[Sink]:
    """Write an annotated video."""
    annotator = Annotator(classes)
    with partial(path) as part, VideoWriter(part, fps) as video:

        def write(result: ProcessedFrame) -> None:
            if result.image is None:
                raise DrawingError(f"frame {result.frame} can't be drawn: its image was never decoded here")
            video.write(annotator.annotate(result.image, result))

        yield write
