"""`keywarp keys`: the API keys of a server."""

from pathlib import Path
from typing import Annotated

import typer

from keywarp.cli.errors import CommandError

app = typer.Typer(no_args_is_help=True, help="The API keys that a server takes.", pretty_exceptions_enable=False)

File = Annotated[Path, typer.Option("--file", help="The file of keys.", envvar="KEYWARP_KEYS", dir_okay=False)]
KEYS = Path("keys.txt")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the log.")],
    scopes: Annotated[
        str,
        typer.Option(
            help="What it is for, with commas: stream (videos, what models there are), metrics, models (load them)."
        ),
    ] = "stream",
    streams: Annotated[
        int | None, typer.Option(min=1, help="Streams at once.", show_default="what `serve --key-streams` says")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Frames a second of all its streams.", show_default="what `serve --key-rate` says"),
    ] = None,
    file: File = KEYS,
) -> None:
    """Make a key, show it this once, and append its hash to the file.

    Example: keywarp keys add gate-1 --file keys.txt && keywarp serve --keys keys.txt
    """
    from keywarp.server.errors import KeyFileError
    from keywarp.server.security.keys import add_key, new_key, read_keys

    try:
        known = read_keys(file) if file.exists() and file.stat().st_size else []
        if name in [key.name for key in known]:
            raise KeyFileError(f"{file} has a key named {name} already: remove its line first")
        secret, key = new_key(name, scopes, streams=streams, rate=rate)
        add_key(file, key)
    except (KeyFileError, OSError) as error:
        raise CommandError(str(error)) from error
    typer.echo(secret)


@app.command("list")
def show(file: File = KEYS) -> None:
    """List the keys of the file: names, scopes and limits.

    Example: keywarp keys list --file keys.txt
    """
    from keywarp.server.errors import KeyFileError
    from keywarp.server.security.keys import read_keys

    try:
        for key in read_keys(file):
            typer.echo(f"{key.name}\t{','.join(sorted(key.scopes))}\t{key.limits}".rstrip())
    except KeyFileError as error:
        raise CommandError(str(error)) from error
