"""`keywarp models`: the bundles on this machine, and those that a running server has loaded."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from keywarp.cli.errors import CommandError
from keywarp.cli.options import ServerOption
from keywarp.client import DEFAULT_SERVER, Client
from keywarp.commands.runtime import BACKEND_HELP

if TYPE_CHECKING:
    from keywarp.engines import BackendName, Bundle

app = typer.Typer(
    help="The bundles: what they are, whether they are sound, and which a server has.",
    no_args_is_help=True,
    add_completion=False,
)

Folder = Annotated[Path, typer.Option("--models", help="The folder that holds the bundles.", envvar="KEYWARP_MODELS")]
Name = Annotated[str, typer.Argument(help="A bundle of the models folder, or a bundle's own folder.")]
ModelName = Annotated[str, typer.Argument(help="The model's name.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        help="Where the server has keys, one of the scope `models`.",
        envvar="KEYWARP_API_KEY",
        metavar="KEY",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

MODELS = Path("models")


@app.command("list", epilog="Example: keywarp models list --json")
def list_models(models: Folder = MODELS, as_json: Json = False) -> None:
    """List the bundles; a damaged one is listed with its fault, and the exit status is 1."""
    from rich.console import Console
    from rich.table import Table

    from keywarp.engines import BundleError, load_bundle

    rows: list[dict[str, object]] = []
    for folder in sorted(p.parent for p in models.glob("*/bundle.json")):
        try:
            bundle = load_bundle(folder)
        except BundleError as error:
            rows.append({"name": folder.name, "error": str(error)})
            continue
        manifest = bundle.manifest
        size = sum(file.size for file in manifest.files.values())
        classes = [c.name for c in manifest.classes]
        rows.append(
            {
                "name": manifest.name,
                "version": manifest.version,
                "task": manifest.task,
                "classes": classes,
                "bytes": size,
            }
        )
    if not rows:
        raise CommandError(f"no bundle in {models}: name the folder with --models")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        table = Table("name", "version", "task", "classes", "size")
        for row in rows:
            if "error" in row:
                table.add_row(str(row["name"]), "[red]damaged[/]", "", str(row["error"]), "")
            else:
                classes = list(map(str, row["classes"]))  # type: ignore[call-overload]
                shown = ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")
                megabytes = f"{int(str(row['bytes'])) / 1e6:.1f} MB"
                table.add_row(str(row["name"]), str(row["version"]), str(row["task"]), shown, megabytes)
        Console().print(table)
    if any("error" in row for row in rows):
        raise typer.Exit(1)


@app.command(epilog="Example: keywarp models show street")
def show(name: Name, models: Folder = MODELS) -> None:
    """Print a bundle's manifest as JSON, after checking the files; and on stderr what it would run on here, and why."""
    from keywarp.engines import EngineError, choose_backend

    typer.echo(find_bundle(name, models).manifest.model_dump_json(indent=2))
    try:
        choice = choose_backend()
    except EngineError as error:
        raise CommandError(str(error)) from error
    typer.echo(f"here it runs on {choice.backend}: {choice.reason}", err=True)


@app.command(epilog="Example: keywarp models verify street --backend tensorrt")
def verify(
    name: Name,
    models: Folder = MODELS,
    backend: Annotated[
        list[str] | None,
        typer.Option(help=f"Compare with this: {BACKEND_HELP} May be repeated.", show_default="all of the CPU's"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a bundle's files against their hashes, and that backends agree on its graphs in fp32.

    The reference is ONNX Runtime on the CPU.
    """
    from rich.console import Console
    from rich.table import Table

    from keywarp.engines import AVAILABLE, EngineError, open_backend
    from keywarp.engines.parity import TOLERANCE, compare_backends

    bundle = find_bundle(name, models)
    try:
        names = dict.fromkeys([AVAILABLE[-1], *(backend or AVAILABLE[:-1])])
        backends = [open_backend(cast("BackendName", b), "fp32") for b in names]
        parities = compare_backends(bundle, backends)
    except EngineError as error:
        raise CommandError(str(error)) from error
    if as_json:
        rows = [asdict(p) | {"agrees": p.agrees} for p in parities]
        typer.echo(json.dumps({"name": bundle.name, "files": "ok", "tolerance": TOLERANCE, "parity": rows}, indent=2))
    else:
        table = Table("graph", "output", "backend", "against", "largest error", "relative", "")
        for p in parities:
            verdict = "[green]agrees[/]" if p.agrees else "[red]differs[/]"
            table.add_row(p.graph, p.output, p.backend, p.reference, f"{p.error:.2e}", f"{p.relative:.2e}", verdict)
        typer.echo(f"{bundle.path}: all files match their hashes")
        Console().print(table)
    if not all(p.agrees for p in parities):
        raise typer.Exit(1)


@app.command(epilog="Example: keywarp models load street --server http://127.0.0.1:8080")
def load(name: ModelName, server: ServerOption = DEFAULT_SERVER, api_key: ApiKey = None) -> None:
    """Have a running server load a bundle of its models folder, or load it anew; print its state as JSON."""
    with Client(server, api_key=api_key) as client:
        typer.echo(client.load_model(name).model_dump_json(indent=2))


@app.command(epilog="Example: keywarp models unload street --server http://127.0.0.1:8080")
def unload(
    name: ModelName,
    server: ServerOption = DEFAULT_SERVER,
    api_key: ApiKey = None,
    force: Annotated[
        bool, typer.Option("--force", help="End the model's streams instead of letting them go on.")
    ] = False,
) -> None:
    """Have a running server unload a model; print its state as JSON."""
    with Client(server, api_key=api_key) as client:
        typer.echo(client.unload_model(name, force=force).model_dump_json(indent=2))


def find_bundle(name: str, models: Path) -> "Bundle":
    """The bundle of that name in the models folder, or at that path; exits with a clear error otherwise."""
    from keywarp.engines import BundleError, load_bundle

    folder = models / name if (models / name / "bundle.json").exists() else Path(name)
    if not folder.is_dir():
        known = sorted(p.parent.name for p in models.glob("*/bundle.json"))
        raise CommandError(f"no model {name!r} in {models}; there are: {', '.join(known) or 'none'}")
    try:
        return load_bundle(folder)
    except BundleError as error:
        raise CommandError(str(error)) from error
