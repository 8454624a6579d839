"""`keywarp keys`: add, rotate, remove and list the API keys of a server."""

from pathlib import Path
from typing import Annotated

import typer

from keywarp.cli.errors import CommandError
from keywarp.server.errors import KeyFileError
from keywarp.server.security.keys import add_key, new_key, read_keys, remove_key, replace_key

app = typer.Typer(
    no_args_is_help=True, help="Add, rotate, remove and list a server's API keys.", pretty_exceptions_enable=False
)

FileOption = Annotated[
    Path, typer.Option("--file", help="The file of API keys.", envvar="KEYWARP_KEYS", dir_okay=False)
]
DEFAULT_FILE = Path("keys.txt")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The key's name in the file and in the server's log.")],
    scopes: Annotated[
        str,
        typer.Option(
            help="What the key allows, separated by commas: stream (send video, list models), metrics (read /metrics), "
            "models (load and unload them), site (read the site file and the keys again)."
        ),
    ] = "stream",
    streams: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The largest number of streams at the same time.",
            show_default="that of `serve --key-streams`",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="The largest number of frames per second in all its streams together.",
            show_default="that of `serve --key-rate`",
        ),
    ] = None,
    file: FileOption = DEFAULT_FILE,
) -> None:
    """Make a key, print it, and append its hash to the file. It can't be printed again.

    Example: keywarp keys add gate-1 --file keys.txt && keywarp serve --keys keys.txt
    """
    try:
        known = read_keys(file) if file.exists() and file.stat().st_size else []
        if name in [key.name for key in known]:
            raise CommandError(f"{file} has a key named {name} already: rotate or remove it instead")
        secret, key = new_key(name, scopes, streams=streams, rate=rate)
        add_key(file, key)
    except (KeyFileError, OSError) as error:
        raise CommandError(str(error)) from error
    typer.echo(secret)


@app.command()
def rotate(
    name: Annotated[str, typer.Argument(help="The name of the key.")],
    file: FileOption = DEFAULT_FILE,
) -> None:
    """Give a key another secret, and print that. Its name, scopes and limits stay.

    A running server goes on with the old secret until it reads the file again (SIGHUP, `POST /v1/reload`).

    Example: keywarp keys rotate gate-1 --file keys.txt && systemctl reload keywarp
    """
    try:
        old = next((key for key in read_keys(file) if key.name == name), None)
        scopes = ",".join(sorted(old.scopes)) if old else "stream"
        secret, key = new_key(name, scopes, **(old.limits.model_dump() if old else {}))
        replace_key(file, key)
    except (KeyFileError, OSError) as error:
        raise CommandError(str(error)) from error
    typer.echo(secret)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The name of the key.")],
    file: FileOption = DEFAULT_FILE,
) -> None:
    """Remove a key from the file.

    A running server accepts it until it reads the file again (SIGHUP, `POST /v1/reload`), and then ends its
    connections.

    Example: keywarp keys remove gate-1 --file keys.txt && systemctl reload keywarp
    """
    try:
        remove_key(file, name)
    except (KeyFileError, OSError) as error:
        raise CommandError(str(error)) from error


@app.command("list")
def list_keys(file: FileOption = DEFAULT_FILE) -> None:
    """List the keys of the file: names, scopes and limits.

    Example: keywarp keys list --file keys.txt
    """
    try:
        for key in read_keys(file):
            typer.echo(f"{key.name}\t{','.join(sorted(key.scopes))}\t{key.limits}".rstrip())
    except KeyFileError as error:
        raise CommandError(str(error)) from error
