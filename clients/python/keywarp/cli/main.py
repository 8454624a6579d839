"""The `keywarp` command: `cameras`, `stream`, `streams`, `watch`, and the commands that installed packages add.

A package adds a command by an entry point of the group `keywarp.commands`, which names a plain function or a Typer
application (of one command or a group of them). It is imported only when it is run, or when the help lists it.
"""

import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from av.error import FFmpegError
from typer.core import TyperGroup

from keywarp.cli import cameras, streams
from keywarp.cli.errors import CommandError
from keywarp.cli.stream import stream
from keywarp.cli.watch import watch
from keywarp.client.errors import KeywarpError

GROUP = "keywarp.commands"
EXAMPLE = "Example:"


class Commands(TyperGroup):
    """The group of our own commands and of those that entry points add."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of this name. An entry point's command is imported now."""
        own = super().get_command(ctx, cmd_name)
        added = entry_points(group=GROUP, name=cmd_name)
        return _with_examples_last(own if own is not None or not added else _load(next(iter(added))))


app = typer.Typer(
    name="keywarp",
    cls=Commands,
    help="Run heavy recognition networks on live video at a fraction of their cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(stream)
app.command()(watch)
app.add_typer(cameras.app, name="cameras")
app.add_typer(streams.app, name="streams")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"keywarp {version('keywarp-client')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Process the options before a command."""


def main() -> None:
    """Run the command line. An error for the user is printed as one sentence to stderr, with exit status 1."""
    try:
        app()
    except KeywarpError as error:
        print(f"keywarp: {error}", file=sys.stderr)
        sys.exit(1)
    except FFmpegError as error:  # a fault of a video that has no error of ours
        print(f"keywarp: FFmpeg can't read or write a video: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def _with_examples_last(command: Any) -> Any:
    """Move the examples of a command, or of a group's commands, from its docstring to the end of its help.

    Examples are the paragraphs of a docstring that begin with `Example:`.
    """
    for one in getattr(command, "commands", {}).values():
        _with_examples_last(one)
    paragraphs = (getattr(command, "help", None) or "").split("\n\n")
    examples = [" ".join(text.split()) for text in paragraphs if text.startswith(EXAMPLE)]
    if examples:
        command.help = "\n\n".join(text for text in paragraphs if not text.startswith(EXAMPLE))
        command.epilog = "\n\n".join(examples)
    return command


def _load(added: EntryPoint) -> Any:
    try:
        command = added.load()
    except ImportError as error:
        return _unavailable(added.name, error)
    if not isinstance(command, typer.Typer):
        application = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        application.command(added.name)(command)
        command = application
    loaded = typer.main.get_command(command)
    loaded.name = added.name
    return loaded


def _unavailable(name: str, error: ImportError) -> Any:
    """Return a command that explains why it can't run."""

    def explain() -> None:
        package = (error.name or "a package").partition(".")[0]
        raise CommandError(f"`keywarp {name}` can't run, because {package} can't be imported ({error})")

    application = typer.Typer(add_completion=False)
    application.command(
        name,
        help=f"(can't run: {error})",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(explain)
    return typer.main.get_command(application)
