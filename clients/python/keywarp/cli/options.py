"""What several commands take on the command line, told once."""

from pathlib import Path
from typing import Annotated

import typer

from keywarp.protocol import MAX_INTERVAL

SourceArgument = Annotated[
    str, typer.Argument(help="A video file or URL, a folder of images, or a camera (camera:0).", show_default=False)
]
ServerOption = Annotated[
    str, typer.Option("--server", help="The server's address.", envvar="KEYWARP_SERVER", metavar="URL")
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(help="Where the server wants one.", envvar="KEYWARP_API_KEY", metavar="KEY", show_default=False),
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
VideoOption = Annotated[
    Path | None,
    typer.Option("--out", help="Write an annotated MP4 video.", metavar="FILE", dir_okay=False, show_default=False),
]
NdjsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json", help="Write the results, one a line (NDJSON).", metavar="FILE", dir_okay=False, show_default=False
    ),
]
CocoOption = Annotated[
    Path | None,
    typer.Option(
        "--coco", help="Write the results as a COCO file.", metavar="FILE", dir_okay=False, show_default=False
    ),
]
MotOption = Annotated[
    Path | None,
    typer.Option(
        "--mot", help="Write boxes as a MOTChallenge file.", metavar="FILE", dir_okay=False, show_default=False
    ),
]
SummaryJsonOption = Annotated[bool, typer.Option("--summary-json", help="Print the figures as JSON.")]
