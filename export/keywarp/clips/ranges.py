"""Ranges of time in videos, and the option that names one."""

import math
from typing import Annotated, Final

import typer

Seconds = tuple[float, float | None]  # from, and to; None is the end
ALL: Final[Seconds] = (0.0, None)
RangeOption = Annotated[
    str | None,
    typer.Option("--range", help="Use this part of each video, in seconds.", metavar="A:B", show_default="all of it"),
]


def chosen_range(text: str | None) -> Seconds:
    """Return the range that the option names, or all without it.

    Raises:
        typer.BadParameter: If it isn't a range.
    """
    try:
        return parse_range(text) if text else ALL
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--range") from error


def parse_range(text: str) -> Seconds:
    """Return the range that `A:B` names, in seconds since a video's start. Either side may be left out.

    Raises:
        ValueError: If it isn't a range.
    """
    first, colon, last = text.partition(":")
    try:
        start, end = float(first or 0), float(last) if last else None
    except ValueError:
        start, end = -1.0, None
    if not colon or not 0 <= start < (math.inf if end is None else end) or end == math.inf:
        raise ValueError(f"{text!r} isn't a range of seconds: write for instance 10:20, 10: or :20")
    return start, end
