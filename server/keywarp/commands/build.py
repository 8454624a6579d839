"""`keywarp build`: compile a bundle before it is served."""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from keywarp.cli.errors import CommandError
from keywarp.commands.bundles import find_bundle
from keywarp.commands.options import (
    MODELS,
    BackendOption,
    BundleArgument,
    JsonOption,
    ModelsOption,
    MotionOption,
    PrecisionOption,
)
from keywarp.engines import EngineError, open_backend
from keywarp.engines.building import BuiltGraph, build_ahead, build_here
from keywarp.engines.engine import default_cache
from keywarp.engines.motion import MotionSource
from keywarp.engines.precisions import choose_precision

DEFAULT_SIZE = "720x1280"


def build(
    name: BundleArgument,
    models: ModelsOption = MODELS,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    sizes: Annotated[
        list[str] | None,
        typer.Option(
            help="A size of the frames to be served. May be repeated.",
            metavar="HEIGHTxWIDTH",
            show_default=DEFAULT_SIZE,
        ),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            help="Build TensorRT plans for GPUs of this compute capability, which needs the extra `rtx` but no GPU. "
            "May be repeated.",
            metavar="MAJOR.MINOR",
            show_default="this machine's device",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write to.", file_okay=False, show_default="the engine's cache, see KEYWARP_CACHE"
        ),
    ] = None,
    motion: MotionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compile a bundle for this machine's device, or for other GPUs, so that the server starts at once.

    The server compiles the bundle itself for frames of other sizes, when the first one arrives.

    Example: keywarp build street --backend tensorrt --precision fp16 --sizes 600x1000
    """
    bundle = find_bundle(name, models)
    frames = [_parse_pair(size, r"(\d+)x(\d+)", "--sizes", "like 600x1000") for size in sizes or [DEFAULT_SIZE]]
    targets = [
        _parse_pair(capability, r"(\d+)\.(\d+)", "--compute-capability", "like 8.6")
        for capability in compute_capability or []
    ]
    folder = cache or default_cache()
    source = MotionSource.parse(motion or bundle.manifest.motion)
    try:
        if targets:
            if backend not in ("auto", "tensorrt"):
                raise typer.BadParameter("works only with the backend tensorrt", param_hint="--compute-capability")
            chosen, _ = choose_precision(bundle, "fp16" if precision == "auto" else precision, "tensorrt")
            rest = "fp16" if chosen == "int8" else chosen
            compiling = build_ahead(bundle.in_precision(chosen), targets, rest, frames, folder, source)
        else:
            chosen, _ = choose_precision(bundle, precision, backend)
            runtime = open_backend(backend, chosen, cache=folder)
            compiling = build_here(bundle.in_precision(runtime.precision), runtime, frames, folder, source)
        built = _collect(compiling, f"{bundle.name} {bundle.manifest.version}")
    except EngineError as error:
        raise CommandError(str(error)) from error
    if as_json:
        graphs = [asdict(graph) for graph in built]
        typer.echo(json.dumps({"name": bundle.name, "cache": str(folder), "built": graphs}, indent=2))
    else:
        _print_table(built)


def _collect(compiling: Iterable[BuiltGraph], title: str) -> list[BuiltGraph]:
    """Wait for all graphs. A spinner shows progress if stderr is a terminal: how long a graph takes isn't known."""
    built: list[BuiltGraph] = []
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"{title}: compiling", total=None)
        for graph in compiling:
            built.append(graph)
            progress.update(
                task, description=f"{title}: {len(built)} compiled, the last is {graph.graph} for {graph.target}"
            )
    return built


def _print_table(built: list[BuiltGraph]) -> None:
    table = Table("graph", "input", "for", "precision", "warp plugins", "size", "time")
    for graph in built:
        table.add_row(
            graph.graph,
            f"{graph.height}x{graph.width}",
            graph.target,
            graph.precision,
            "" if graph.plugins is None else str(graph.plugins),
            f"{graph.size / 1e6:.1f} MB" if graph.size else "",
            "cached" if graph.cached else f"{graph.seconds:.1f} s",
        )
    Console().print(table)


def _parse_pair(text: str, pattern: str, option: str, form: str) -> tuple[int, int]:
    found = re.fullmatch(pattern, text)
    if not found or not int(found[1]):
        raise typer.BadParameter(f"{text!r} isn't {form}", param_hint=option)
    return int(found[1]), int(found[2])
