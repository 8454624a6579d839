"""`keywarp streams`: the streams of a server."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keywarp.cli.options import ApiKeyOption, JsonOption, ServerOption, open_client
from keywarp.client import DEFAULT_SERVER

app = typer.Typer(
    help="List, show and delete the streams of a server.", no_args_is_help=True, pretty_exceptions_enable=False
)

StreamArgument = Annotated[str, typer.Argument(help="The stream's id.", show_default=False)]


@app.command("list")
def list_streams(
    server: ServerOption = DEFAULT_SERVER,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
    fleet: Annotated[
        bool,
        typer.Option(
            "--fleet", help="List the streams of all servers behind the address, and name those that don't answer."
        ),
    ] = False,
) -> None:
    """List the streams that clients feed or the server pulls.

    Example: keywarp streams list --server http://127.0.0.1:8080 --json
    """
    with open_client(server, api_key) as client:
        answer = client.fleet() if fleet else None
        found = answer.streams if answer else client.streams()
    for one in answer.servers if answer else ():
        if one.problem:
            typer.echo(f"the streams of {one.address} are missing: {one.problem}", err=True)
    if as_json:
        typer.echo(json.dumps([stream.model_dump(mode="json", exclude_none=True) for stream in found], indent=2))
        return
    columns = ("id", "model", "interval", "mode", "source", "state", "frames", "server")
    table = Table(*columns[: None if fleet else -1])
    for column in table.columns:  # Only addresses are broken to fit the terminal.
        column.no_wrap, column.overflow = column.header != "source", "fold"
    for stream in found:
        table.add_row(
            escape(stream.id),
            escape(stream.model),
            str(stream.interval),
            stream.mode,
            escape(stream.source or "clients"),
            stream.state,
            str(stream.frames),
            *([escape(stream.server or "")] if fleet else ()),
        )
    Console().print(table)


@app.command()
def show(stream: StreamArgument, server: ServerOption = DEFAULT_SERVER, api_key: ApiKeyOption = None) -> None:
    """Print a stream's options and counters as JSON.

    Example: keywarp streams show gate
    """
    with open_client(server, api_key) as client:
        typer.echo(client.stream_info(stream).model_dump_json(indent=2, exclude_none=True))


@app.command()
def delete(stream: StreamArgument, server: ServerOption = DEFAULT_SERVER, api_key: ApiKeyOption = None) -> None:
    """Delete a stream. Its producer's connection is closed, or the server stops to pull it.

    Example: keywarp streams delete gate
    """
    with open_client(server, api_key) as client:
        client.delete_stream(stream)
