"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from keywarp.client import Client, Source, SourceOptionError, open_source
from keywarp.protocol import MAX_INTERVAL, MAX_KEY_AGE, HiddenRegion
from keywarp.protocol.messages import MAX_FPS

SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A video file or URL, a folder of videos, an image or a folder of images, or a camera (camera:0).",
        show_default=False,
    ),
]
FOLDER = "For a folder of videos, it is a folder."
ServerOption = Annotated[
    str, typer.Option("--server", help="The server's address.", envvar="KEYWARP_SERVER", metavar="URL")
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        help="An API key, if the server needs one.", envvar="KEYWARP_API_KEY", metavar="KEY", show_default=False
    ),
]
IntervalOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MAX_INTERVAL,
        help="Frames from one key frame to the next (default: the model's).",
        show_default=False,
    ),
]
MaxAgeOption = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=MAX_KEY_AGE,
        help="The greatest age of a key frame: if it is older, the next frame is a key frame (default: the server's in "
        "the mode latest, else no limit).",
        metavar="SECONDS",
        show_default=False,
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MAX_INTERVAL,
        help="Frames by which key frames overlap with others: the next is computed between them, so no frame takes "
        "long, but key frames are older. Less than the interval (default: the server's).",
        show_default=False,
    ),
]
MaxFpsOption = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=MAX_FPS,
        help="The most frames per second to process, evenly spaced. Others are left out (default: all).",
        metavar="FPS",
        show_default=False,
    ),
]


HiddenOption = Annotated[
    list[str] | None,
    typer.Option(
        "--hidden",
        help="Make a region black before anything sees it, given by corners x,y in shares of the width and height: "
        "'0,0 1,0 1,0.2 0,0.2' is the upper fifth. The option may be repeated.",
        metavar="CORNERS",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help=f"Write an annotated MP4 video. {FOLDER}", metavar="FILE", show_default=False),
]
NdjsonOption = Annotated[
    Path | None,
    typer.Option("--ndjson", help=f"Write one result per line (NDJSON). {FOLDER}", metavar="FILE", show_default=False),
]
CocoOption = Annotated[
    Path | None,
    typer.Option("--coco", help=f"Write the results as a COCO file. {FOLDER}", metavar="FILE", show_default=False),
]
ParquetOption = Annotated[
    Path | None,
    typer.Option(
        "--parquet",
        help=f"Write the results as a Parquet file, with the columns of the server's. {FOLDER}",
        metavar="FILE",
        show_default=False,
    ),
]
MotOption = Annotated[
    Path | None,
    typer.Option("--mot", help=f"Write the boxes as a MOTChallenge file. {FOLDER}", metavar="FILE", show_default=False),
]
TrackOption = Annotated[
    bool,
    typer.Option("--track", help="Give each object an id that it keeps from frame to frame. --mot writes the ids."),
]
AsStoredOption = Annotated[
    bool,
    typer.Option(
        "--as-stored",
        help="Leave frames as they are stored, for instance those of phones on their side (default: they are turned "
        "upright, as the video or image says).",
    ),
]
StoredVideoOption = Annotated[
    int | None,
    typer.Option(
        "--video",
        min=0,
        help="Which of the videos of a file or URL to take, from 0: 1 is the second (default: the best, and a note "
        "that lists them if there are several).",
        metavar="NUMBER",
        show_default=False,
    ),
]
AllowDamageOption = Annotated[
    bool,
    typer.Option(
        "--allow-damage",
        help="Complete the files and end with status 0 even if frames are damaged or missing (default: files keep the "
        "name FILE.part, and the status is 1).",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", "--summary-json", help="Print the figures as JSON.")]


def read_regions(texts: list[str] | None) -> tuple[HiddenRegion, ...]:
    """Read the regions that `--hidden` gives.

    Raises:
        typer.BadParameter: If one is none.
    """
    regions: TypeAdapter[HiddenRegion] = TypeAdapter(HiddenRegion)
    found = []
    for text in texts or ():
        try:
            found.append(regions.validate_python([corner.split(",") for corner in text.split()]))
        except ValidationError as error:
            raise typer.BadParameter(
                f"{text!r} isn't a region: write three or more corners x,y in shares of the width and height, such as "
                "'0,0 1,0 1,0.2 0,0.2'",
                param_hint="--hidden",
            ) from error
    return tuple(found)


def open_frames(source: str, *, as_stored: bool, video: int | None, vectors: bool = False) -> Source:
    """Open the source that a command reads, as `--as-stored` and `--video` ask for.

    Args:
        source: The source's name.
        as_stored: Whether frames are left as they are stored.
        video: Which of the source's videos, from 0, or None for the best.
        vectors: Whether frames come with the codec's motion vectors.

    Raises:
        typer.BadParameter: If the source can't have several videos, and `video` is given.
        SourceError: If the source can't be opened.
    """
    try:
        return open_source(source, vectors=vectors, upright=not as_stored, video=video)
    except SourceOptionError as error:
        raise typer.BadParameter(error.reason, param_hint=f"--{error.option}") from error


def open_client(server: str, api_key: str | None) -> Client:
    """Make the client that the options `--server` and `--api-key` ask for.

    Raises:
        typer.BadParameter: If the address isn't valid.
    """
    try:
        return Client(server, api_key=api_key)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--server") from error
