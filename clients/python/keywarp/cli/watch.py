"""`keywarp watch`: what is found on a stream that somebody else feeds."""

import json
from typing import Annotated

import typer

from keywarp.cli.options import ApiKeyOption, ServerOption
from keywarp.client import DEFAULT_SERVER, Client


def watch(
    stream: Annotated[str, typer.Argument(help="The stream's id.", show_default=False)],
    server: ServerOption = DEFAULT_SERVER,
    api_key: ApiKeyOption = None,
    pull: Annotated[
        str | None,
        typer.Option(
            help="Have the server pull this URL under that id first (rtsp://, http://, https://).",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        int | None, typer.Option(min=1, help="With --pull: frames from one key frame to the next.", show_default=False)
    ] = None,
) -> None:
    """Print the results of a stream from now on, one a line (NDJSON), until it ends."""
    if interval is not None and pull is None:
        raise typer.BadParameter("only goes with --pull", param_hint="--interval")
    try:
        client = Client(server, api_key=api_key)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--server") from error
    with client:
        if pull is not None:
            client.create_stream(stream, source=pull, interval=interval)
        with client.watch(stream) as results:
            for result in results:
                typer.echo(json.dumps(result.result.model_dump(mode="json", exclude_none=True)))
        if results.missed:
            typer.echo(f"keywarp watch: {results.missed} answers missed: too slow", err=True)
