"""`keywarp export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="What `keywarp train` or `keywarp init` wrote.", dir_okay=False)],
    out: Annotated[Path, typer.Option(help="The bundle's folder; an older bundle in it is replaced.", file_okay=False)],
) -> None:
    """Export a trained checkpoint as a bundle, after checking that its graphs compute what the networks do.

    Example: keywarp export .cache/keywarp/street/checkpoint.pt --out models/street
    """
    try:
        from keywarp.export.bundle import export_bundle
    except ImportError as error:
        typer.echo(f"Exporting needs {error.name}: install the extra `train` (README, Install)", err=True)
        raise typer.Exit(1) from error
    from keywarp.engines.errors import BundleError
    from keywarp.export.errors import ExportError
    from keywarp.networks import CheckpointError, load_checkpoint

    try:
        bundle = export_bundle(load_checkpoint(checkpoint), out)
    except (BundleError, CheckpointError, ExportError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"Error: can't write the bundle to {out}: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    size = sum(file.size for file in bundle.manifest.files.values())
    typer.echo(f"{bundle.path}: {bundle.name} {bundle.manifest.version}, {size / 1e6:.1f} MB in graphs")
