"""Options of the commands that read clips."""

from typing import Annotated

import typer

AllowDamageOption = Annotated[
    bool,
    typer.Option(
        "--allow-damage",
        help="Use what can be read of videos in which frames are damaged or missing (default: that is an error).",
    ),
]
