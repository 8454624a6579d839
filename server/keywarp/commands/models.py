"""`keywarp models`: the bundles on this machine, and those that a running server has loaded."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, cast, get_args

import typer
from rich.console import Console
from rich.table import Table

from keywarp.cli.errors import CommandError
from keywarp.cli.options import AsStoredOption, JsonOption, ServerOption, open_client
from keywarp.client import DEFAULT_SERVER, Client
from keywarp.clips.opening import open_clip
from keywarp.clips.options import AllowDamageOption
from keywarp.commands.bundles import find_bundle, list_bundle_folders
from keywarp.commands.options import MODELS, BundleArgument, ModelsOption
from keywarp.engines import (
    AVAILABLE,
    BackendName,
    Bundle,
    BundleError,
    EngineError,
    Manifest,
    choose_backend,
    load_bundle,
    open_backend,
)
from keywarp.engines.comparison import Clip
from keywarp.engines.parity import TOLERANCE, compare_backends
from keywarp.engines.precisions import choose_precision
from keywarp.quantization import QuantizationError
from keywarp.quantization.footage import read_passages
from keywarp.quantization.judging import Judge, Judgement

app = typer.Typer(
    help="List, show and check bundles; load and unload them in a running server.",
    no_args_is_help=True,
    add_completion=False,
)

ModelArgument = Annotated[str, typer.Argument(help="The model's name.")]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        help="An API key with the scope `models`, if the server has keys.",
        envvar="KEYWARP_API_KEY",
        metavar="KEY",
        show_default=False,
    ),
]


@app.command("list")
def list_models(
    models: ModelsOption = MODELS,
    server: Annotated[
        str | None,
        typer.Option(help="List the models of the server at this address instead.", metavar="URL", show_default=False),
    ] = None,
    api_key: ApiKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the bundles on this machine, or the models that a running server has.

    A bundle that is damaged, or a model that isn't ready, is listed with its error. A damaged bundle makes the exit
    status 1.

    Example: keywarp models list --json

    Example: keywarp models list --server http://127.0.0.1:8080
    """
    if server is not None:
        _list_served(server, api_key, as_json=as_json)
        return
    folders = list_bundle_folders(models)
    if not folders:
        raise CommandError(f"no bundle in {models}: name the folder with --models")
    manifests: dict[str, Manifest] = {}
    damaged: dict[str, str] = {}  # the error, by folder
    for folder in folders:
        try:
            manifests[folder.name] = load_bundle(folder).manifest
        except BundleError as error:
            damaged[folder.name] = str(error)
    names = [folder.name for folder in folders]
    if as_json:
        rows = [
            {"name": name, "error": damaged[name]} if name in damaged else _describe(manifests[name]) for name in names
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        table = Table("name", "version", "task", "classes", "size")
        for name in names:
            if name in damaged:
                table.add_row(name, "[red]damaged[/]", "", damaged[name], "")
            else:
                table.add_row(*_row(manifests[name]))
        Console().print(table)
    if damaged:
        raise CommandError(f"{len(damaged)} of {len(names)} bundles can't be used: {', '.join(damaged)}")


@app.command()
def show(name: BundleArgument, models: ModelsOption = MODELS) -> None:
    """Check a bundle's files and print its manifest as JSON; name the backend for this machine on stderr.

    Example: keywarp models show street
    """
    bundle = find_bundle(name, models)
    typer.echo(bundle.manifest.model_dump_json(indent=2))
    try:
        choice = choose_backend()
        precision, reason = choose_precision(bundle, "auto", choice.backend)  # type: ignore[arg-type]
    except EngineError as error:
        raise CommandError(str(error)) from error
    typer.echo(f"here it runs on {choice.backend}: {choice.reason}", err=True)
    if reason:
        typer.echo(f"its precision auto is {'int8' if precision == 'int8' else 'not int8'}: {reason}", err=True)


@app.command()
def verify(
    name: BundleArgument,
    models: ModelsOption = MODELS,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A backend to compare with the reference: {', '.join(get_args(BackendName)[1:])}. May be repeated.",
            metavar="BACKEND",
            show_default="all for the CPU",
        ),
    ] = None,
    video: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure on this video how far the bundle's int8 agrees with fp32. May be repeated.",
            metavar="VIDEO",
            show_default="only check the declared agreement",
        ),
    ] = None,
    as_stored: AsStoredOption = False,
    allow_damage: AllowDamageOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle's files against their hashes, and that the backends agree on its graphs in fp32.

    The reference is ONNX Runtime on the CPU. Backends that differ make the exit status 1. So do graphs in int8 whose
    declared agreement with fp32 is below the bundle's tolerance, or the agreement that is measured on a video.

    Example: keywarp models verify street --backend tensorrt
    """
    bundle = find_bundle(name, models)
    try:
        names = dict.fromkeys([AVAILABLE[-1], *(backend or AVAILABLE[:-1])])
        backends = [open_backend(cast("BackendName", name), "fp32") for name in names]  # raises for unknown names
        parities = compare_backends(bundle, backends)
        clips = [open_clip(path, as_stored=as_stored, allow_damage=allow_damage) for path in video or ()]
        judged = _judge(bundle, clips) if clips else {}
    except (EngineError, QuantizationError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        rows = [asdict(parity) | {"agrees": parity.agrees} for parity in parities]
        report = {"name": bundle.name, "files": "ok", "tolerance": TOLERANCE, "parity": rows}
        typer.echo(json.dumps(report | {"int8": {name: asdict(j) for name, j in judged.items()}}, indent=2))
    else:
        table = Table("graph", "output", "backend", "against", "largest error", "relative", "")
        for p in parities:
            verdict = "[green]agrees[/]" if p.agrees else "[red]differs[/]"
            table.add_row(p.graph, p.output, p.backend, p.reference, f"{p.error:.2e}", f"{p.relative:.2e}", verdict)
        typer.echo(f"{bundle.path}: all files match their hashes")
        Console().print(table)
        for quantization in bundle.manifest.precisions.values():
            for m in quantization.measurements:
                declared = Judgement(m.key_agreement, m.propagated_agreement)
                _say(declared, f"declared for {m.backend} with {m.instructions}")
        for name, judgement in judged.items():
            _say(judgement, f"measured on {name}")
    differing = dict.fromkeys(f"{p.backend} on {p.graph}" for p in parities if not p.agrees)
    if differing:
        raise CommandError(f"backends differ from the reference: {', '.join(differing)}")
    for name, judgement in judged.items():
        tolerance = bundle.manifest.precisions["int8"].tolerance
        if judgement.agreement < tolerance:
            raise CommandError(
                f"{bundle.path} in int8 agrees with fp32 to {100 * judgement.agreement:.2f} % on {name}, less than its "
                f"tolerance of {100 * tolerance:.2f} %: quantise it again (keywarp quantize)"
            )


@app.command()
def load(name: ModelArgument, server: ServerOption = DEFAULT_SERVER, api_key: ApiKeyOption = None) -> None:
    """Make a running server load or reload a bundle of its models folder; print the model's state as JSON.

    Example: keywarp models load street --server http://127.0.0.1:8080
    """
    with Client(server, api_key=api_key) as client:
        typer.echo(client.load_model(name).model_dump_json(indent=2))


@app.command()
def unload(
    name: ModelArgument,
    server: ServerOption = DEFAULT_SERVER,
    api_key: ApiKeyOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="End the model's streams instead of letting them finish.")
    ] = False,
) -> None:
    """Make a running server unload a model; print the model's state as JSON.

    Example: keywarp models unload street --server http://127.0.0.1:8080
    """
    with Client(server, api_key=api_key) as client:
        typer.echo(client.unload_model(name, force=force).model_dump_json(indent=2))


def _list_served(server: str, api_key: str | None, *, as_json: bool) -> None:
    with open_client(server, api_key) as client:
        found = client.models()
    if as_json:
        typer.echo(json.dumps([model.model_dump(mode="json", exclude_none=True) for model in found], indent=2))
        return
    table = Table("name", "version", "task", "state", "runs on")
    for model in found:
        table.add_row(model.name, model.version, model.task, model.state, f"{model.backend} {model.precision}")
    Console().print(table)


def _judge(bundle: Bundle, clips: Sequence[Clip]) -> dict[str, Judgement]:
    """Return the agreement of the bundle's int8 with fp32 on the backends that it was measured on."""
    quantization = bundle.manifest.precisions.get("int8")
    if quantization is None:
        raise CommandError(f"{bundle.path} has no graphs in int8 to measure on a video: leave out --video")
    names = [m.backend for m in quantization.measurements if m.backend in AVAILABLE] or list(AVAILABLE)
    passages = list(read_passages(clips, max(bundle.manifest.key_interval, 2)))
    with TemporaryDirectory(prefix="keywarp-verify-") as cache:
        judges = {name: Judge(bundle, passages, cast("BackendName", name), cache=Path(cache)) for name in names}
        return {name: judge.judge(bundle) for name, judge in judges.items()}


def _say(judgement: Judgement, where: str) -> None:
    key, propagated = 100 * judgement.key, 100 * judgement.propagated
    typer.echo(f"int8 agrees with fp32 to {key:.2f} % on key and {propagated:.2f} % on propagated frames, {where}")


def _describe(manifest: Manifest) -> dict[str, object]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "classes": [c.name for c in manifest.classes],
        "bytes": sum(file.size for file in manifest.all_files.values()),
        "precisions": list(manifest.precisions),
    }


def _row(manifest: Manifest) -> tuple[str, ...]:
    names = [c.name for c in manifest.classes] or [manifest.dense.quantity if manifest.dense else ""]
    classes = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    size = sum(file.size for file in manifest.all_files.values())
    return manifest.name, manifest.version, manifest.task, classes, f"{size / 1e6:.1f} MB"
