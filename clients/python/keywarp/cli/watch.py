"""`keywarp watch`: print the results of a stream that another program feeds."""

import json
from typing import Annotated

import typer

from keywarp.cli.options import ApiKeyOption, ServerOption, open_client
from keywarp.client import DEFAULT_SERVER


def watch(
    stream: Annotated[str, typer.Argument(help="The stream's id.", show_default=False)],
    server: ServerOption = DEFAULT_SERVER,
    api_key: ApiKeyOption = None,
    pull: Annotated[
        str | None,
        typer.Option(
            help="First let the server pull this URL under the id (rtsp://, http://, https://).",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        int | None, typer.Option(min=1, help="With --pull: frames from one key frame to the next.", show_default=False)
    ] = None,
) -> None:
    """Print a stream's responses as they come, one per line (NDJSON), until the stream ends."""
    if interval is not None and pull is None:
        raise typer.BadParameter("needs --pull", param_hint="--interval")
    with open_client(server, api_key) as client:
        if pull is not None:
            client.create_stream(stream, source=pull, interval=interval)
        with client.watch(stream) as results:
            for result in results:
                typer.echo(json.dumps(result.result.model_dump(mode="json", exclude_none=True)))
        if results.missed:
            typer.echo(f"keywarp: {results.missed} results were missed because they were read too slowly", err=True)
