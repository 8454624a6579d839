"""`keywarp export`."""

from pathlib import Path
from typing import Annotated

import typer

from keywarp.cli.errors import CommandError
from keywarp.torch_commands.errors import importing, printing_doubts, reporting_errors


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint of `keywarp train` or `keywarp init`.", dir_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="The bundle's folder; an older bundle in it is replaced.", file_okay=False)],
) -> None:
    """Export a checkpoint as a bundle, after checking that its graphs compute what the networks do.

    Example: keywarp export .cache/keywarp/street/checkpoint.pt --out models/street
    """
    with importing("exporting"):
        from keywarp.export import export_bundle
        from keywarp.networks import load_checkpoint

    try:
        with reporting_errors(), printing_doubts():
            bundle = export_bundle(load_checkpoint(checkpoint), out)
    except OSError as error:
        raise CommandError(f"can't write the bundle to {out}: {error.strerror}") from error
    size = sum(file.size for file in bundle.manifest.files.values())
    typer.echo(f"{bundle.path}: {bundle.name} {bundle.manifest.version}, {size / 1e6:.1f} MB in graphs")
