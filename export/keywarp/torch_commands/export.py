"""`keywarp export`."""

from dataclasses import replace
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
    motion: Annotated[
        str, typer.Option(help="The bundle's default motion source.", metavar="SOURCE", show_default="the checkpoint's")
    ] = "",
) -> None:
    """Export a checkpoint as a bundle, after checking that its graphs compute what the networks do.

    Example: keywarp export .cache/keywarp/street/checkpoint.pt --out models/street
    """
    with importing("exporting"):
        from keywarp.engines import MotionSource
        from keywarp.export import export_bundle
        from keywarp.networks import load_checkpoint

    try:
        if motion:
            MotionSource.parse(motion)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--motion") from error
    try:
        with reporting_errors(), printing_doubts():
            trained = load_checkpoint(checkpoint)
            if motion:
                trained = replace(trained, card=replace(trained.card, motion=motion))
            bundle = export_bundle(trained, out)
    except OSError as error:
        raise CommandError(f"can't write the bundle to {out}: {error.strerror}") from error
    size = sum(file.size for file in bundle.manifest.files.values())
    typer.echo(f"{bundle.path}: {bundle.name} {bundle.manifest.version}, {size / 1e6:.1f} MB in graphs")
