"""The choice of a motion source on the command line."""

from enum import StrEnum
from typing import Annotated

import typer


class Motion(StrEnum):
    """The names of `keywarp.engines.motion`, known here without importing what is heavy."""

    NETWORK = "network"
    NONE = "none"
    DIS = "dis"


MOTION_HELP = (
    "Where the motion between key frames comes from: the model's flow network, none (features are copied), or "
    "OpenCV's DIS."
)
MotionOption = Annotated[Motion, typer.Option(help=MOTION_HELP)]
