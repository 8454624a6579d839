"""`keywarp watch`: print the results of a stream that another program feeds."""

import json
from typing import Annotated

import typer

from keywarp.cli.options import ApiKeyOption, AsStoredOption, ServerOption, StoredVideoOption, open_client
from keywarp.client import DEFAULT_SERVER


def watch(
    stream: Annotated[str, typer.Argument(help="The stream's id.", show_default=False)],
    server: ServerOption = DEFAULT_SERVER,
    api_key: ApiKeyOption = None,
    pull: Annotated[
        str | None,
        typer.Option(
            help="First let the server pull this URL under the id (rtsp://, rtmp://, udp://, http://, ...).",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        int | None, typer.Option(min=1, help="With --pull: frames from one key frame to the next.", show_default=False)
    ] = None,
    as_stored: AsStoredOption = False,
    video: StoredVideoOption = None,
) -> None:
    """Print a stream's responses as they come, one per line (NDJSON), until the stream ends.

    --interval, --as-stored and --video say how the server is to pull, so they need --pull.

    Example: keywarp watch gate --pull rtsp://192.168.7.20/stream1 --as-stored
    """
    for name, given in (
        ("--interval", interval is not None),
        ("--as-stored", as_stored),
        ("--video", video is not None),
    ):
        if given and pull is None:
            raise typer.BadParameter("needs --pull", param_hint=name)
    with open_client(server, api_key) as client:
        if pull is not None:
            client.create_stream(
                stream, source=pull, interval=interval, upright=False if as_stored else None, video=video
            )
        with client.watch(stream) as results:
            for result in results:
                typer.echo(json.dumps(result.result.model_dump(mode="json", exclude_none=True)))
        if results.missed:
            typer.echo(f"keywarp: {results.missed} results were missed because they were read too slowly", err=True)
