"""`keywarp serve`: run the server. Its options are the fields of `keywarp.server.settings.Settings`."""

import inspect
import logging
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer
from pydantic import Field, ValidationError, field_validator

from keywarp.cli.errors import CommandError
from keywarp.commands.options import option_for
from keywarp.engines import EngineError
from keywarp.protocol import faults
from keywarp.server.errors import (
    CameraStoreError,
    DecoderError,
    EventStoreError,
    KeyFileError,
    SiteError,
    TracesError,
)
from keywarp.server.settings import MEBIBYTE, Settings
from keywarp.server.telemetry.traces import wants_traces

LOOPBACK = ("127.0.0.1", "::1", "localhost")
NOT_OPTIONS = {"cache", "traces", "pull_timeout", "hello_timeout", "drain_timeout"}  # settings that only code can set
SHOWN: dict[str, dict[str, Any]] = {  # shown in the help instead of a type, or of a default that is None or empty
    "default_model": {"show_default": "the first by name"},
    "backend": {"metavar": "BACKEND"},  # its description has the names
    "allow_origin": {"metavar": "ORIGIN", "show_default": "its own pages only"},
    "peer": {"metavar": "URL", "show_default": "none"},
    "allow_pull": {"metavar": "HOST", "show_default": "nowhere"},
    "site": {"dir_okay": False, "show_default": False},
    "keys": {"dir_okay": False, "show_default": False},
    "data": {"file_okay": False, "show_default": False},
    "leases": {"file_okay": False, "show_default": False},
    "model_limit": {"metavar": "MODEL=STREAMS", "show_default": "no limit"},
    "address_streams": {"show_default": "three quarters of --max-streams"},
    "key_streams": {"show_default": "no limit"},
    "key_rate": {"show_default": "no limit"},
}


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="A TOML file of options: their names with _ for -, such as max_streams = 16. "
        "The command line and the environment take precedence.",
        envvar="KEYWARP_CONFIG",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]


class ServeSettings(Settings):
    """The server's settings, plus those that only the command has."""

    log_level: str = Field(
        default="info", validate_default=True, description="The lowest level to log: debug, info, warning or error."
    )

    @field_validator("log_level")
    @classmethod
    def _check_level(cls, level: str) -> str:
        if level.upper() not in logging.getLevelNamesMapping():
            raise ValueError(f"no such level: {level!r}")
        return level.upper()

    @field_validator("model_limit", mode="before")
    @classmethod
    def _parse_limits(cls, limits: object) -> object:
        """Parse the option's values, such as `street=8`. A file may have a table instead."""
        return dict(_parse_limit(str(limit)) for limit in limits) if isinstance(limits, list) else limits


FIELDS = {  # by the option's name
    field.removesuffix("_bytes"): field for field in ServeSettings.model_fields if field not in NOT_OPTIONS
}
SIZES = [name for name, field in FIELDS.items() if name != field]  # options in MiB, but fields in bytes


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    return f"KEYWARP_{name.upper()}"


def _parameter(name: str) -> inspect.Parameter:
    """Make the parameter from which Typer makes the option of this name."""
    field = ServeSettings.model_fields[FIELDS[name]]
    shown: dict[str, Any] = {"help": field.description, "envvar": _variable(name)}
    kind, default = field.annotation, field.default
    if get_origin(kind) in (tuple, Mapping):
        kind, default = list[str], list(default)
        shown["help"] = f"{field.description} May be repeated."
    if name in SIZES:
        default //= MEBIBYTE
        shown |= {"help": f"{str(field.description).removesuffix('.')}, in MiB.", "min": 1}
    option = option_for(field, _flag(name), **shown, **SHOWN.get(name, {}))
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's `**settings` by one option for each setting, which an environment variable can set, too."""
    signature = inspect.signature(command)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *map(_parameter, FIELDS)])  # type: ignore[attr-defined]
    return command


@with_settings
def serve(
    context: typer.Context,
    config: ConfigOption = None,
    **settings: Any,
) -> None:
    """Serve the models of a folder over REST and WebSocket.

    Example: keywarp serve --models models --port 8080
    """
    from keywarp.server.process import run  # imports FastAPI, which `--help` doesn't need
    from keywarp.server.telemetry.logs import log_to_stderr

    chosen = choose_settings(context, settings, config)
    log_to_stderr(chosen.log_level)
    warn_if_open(chosen)
    try:
        run(chosen)
    except (
        CameraStoreError,
        DecoderError,
        EngineError,
        EventStoreError,
        KeyFileError,
        SiteError,
        TracesError,
        OSError,
    ) as error:
        raise CommandError(str(error)) from error


def choose_settings(context: typer.Context, options: Mapping[str, Any], config: Path | None) -> ServeSettings:
    """Make the settings from the options of `with_settings`, then from the file, then from the defaults.

    Raises:
        typer.BadParameter: If one of them is wrong.
    """
    given = {name: value for name, value in options.items() if not _is_default(context, name)}
    return _make_settings(given, _read_config(config) if config else {}, config)


def warn_if_open(settings: Settings) -> None:
    """Log a warning if anyone who reaches the server can use it, and others than this machine can."""
    if not settings.keys and settings.host not in LOOPBACK:
        logging.getLogger(__name__).warning("%s is open to anyone who reaches it: consider --keys", settings.host)


def _is_default(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is None or source.name == "DEFAULT"


def _make_settings(given: Mapping[str, Any], from_file: Mapping[str, Any], config: Path | None) -> ServeSettings:
    """Make the settings from the command line and the environment, then from the file, then from the defaults."""
    values = {
        FIELDS[name]: value * MEBIBYTE if name in SIZES else value for name, value in {**from_file, **given}.items()
    }
    try:
        return ServeSettings(traces=wants_traces(), **values)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0]).removesuffix("_bytes")
        described = faults.describe(error, limit=1)
        if name not in given:
            raise typer.BadParameter(f"{config}: {described}", param_hint="--config") from error
        raise typer.BadParameter(described, param_hint=f"'{_flag(name)}' (env var: '{_variable(name)}')") from error


def _read_config(config: Path) -> dict[str, Any]:
    """Read the file of settings.

    Raises:
        typer.BadParameter: If the file isn't valid TOML, has an unknown name, or has a size that isn't a whole number.
    """
    try:
        found = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{config} can't be read: {error}", param_hint="--config") from error
    for name, value in found.items():
        if name not in FIELDS:
            raise typer.BadParameter(
                f"{config}: there is no setting {name!r}; `keywarp serve --help` lists them", param_hint="--config"
            )
        if name in SIZES and not (isinstance(value, int) and value >= 1):
            raise typer.BadParameter(f"{config}: {name}: {value!r} isn't a whole number of MiB", param_hint="--config")
    return found


def _parse_limit(text: str) -> tuple[str, int]:
    model, _, streams = text.partition("=")
    if not model or not streams.isdecimal():
        raise ValueError(f"{text!r} is not like street=8")
    return model, int(streams)
