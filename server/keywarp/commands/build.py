"""`keywarp build`: compile a bundle before it is served."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from keywarp.cli.errors import CommandError
from keywarp.commands.models import MODELS, Folder, Name, find_bundle
from keywarp.commands.motion import Motion, MotionOption
from keywarp.commands.runtime import BackendOption, PrecisionOption

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keywarp.engines import BackendName, Precision
    from keywarp.engines.building import BuiltGraph
    from keywarp.engines.fusion import Motion as FlowFrom

DEFAULT_SIZE = "720x1280"


def build(
    name: Name,
    models: Folder = MODELS,
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
    sizes: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the frames that will come; may be repeated.", metavar="HEIGHTxWIDTH", show_default=DEFAULT_SIZE
        ),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            help="Build TensorRT plans for such GPUs, without one (needs the extra rtx); may be repeated.",
            metavar="MAJOR.MINOR",
            show_default="this machine's device",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where it goes.", file_okay=False, show_default="the engine's cache, see KEYWARP_CACHE"),
    ] = None,
    motion: MotionOption = Motion.NETWORK,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compile a bundle for this machine's device, so that the server starts at once; or for GPUs elsewhere.

    Where frames come in a size that nothing was built for, the server compiles when the first one comes.

    Example: keywarp build street --backend tensorrt --precision fp16 --sizes 600x1000
    """
    import json
    from dataclasses import asdict

    from keywarp.engines import EngineError, open_backend
    from keywarp.engines.building import build_ahead, build_here
    from keywarp.engines.engine import default_cache

    bundle = find_bundle(name, models)
    frames = [_pair(size, r"(\d+)x(\d+)", "--sizes", "like 600x1000") for size in sizes or [DEFAULT_SIZE]]
    targets = [_pair(c, r"(\d+)\.(\d+)", "--compute-capability", "like 8.6") for c in compute_capability or []]
    folder = cache or default_cache()
    flow = cast("FlowFrom", motion.value if motion in (Motion.NETWORK, Motion.NONE) else "flow")
    try:
        if targets:
            if backend not in ("auto", "tensorrt"):
                raise typer.BadParameter("is for TensorRT", param_hint="--compute-capability")
            chosen = "fp16" if precision == "auto" else precision
            built = build_ahead(bundle, targets, chosen, frames, folder, flow)
        else:
            runtime = open_backend(cast("BackendName", backend), cast("Precision", precision), cache=folder)
            built = build_here(bundle, runtime, frames, folder, flow)
        done = _watched(built, f"{bundle.name} {bundle.manifest.version}")
    except EngineError as error:
        raise CommandError(str(error)) from error
    if as_json:
        typer.echo(
            json.dumps({"name": bundle.name, "cache": str(folder), "built": [asdict(b) for b in done]}, indent=2)
        )
    else:
        _print(done)


def _watched(built: "Iterable[BuiltGraph]", title: str) -> "list[BuiltGraph]":
    """Take in all, with a spinner on stderr if that is a terminal: how long a graph takes isn't known before."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    done: list[BuiltGraph] = []
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"{title}: compiling", total=None)
        for one in built:
            done.append(one)
            progress.update(
                task, description=f"{title}: {len(done)} compiled, the last is {one.graph} for {one.target}"
            )
    return done


def _print(done: "list[BuiltGraph]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("graph", "input", "for", "precision", "warp plugins", "size", "time")
    for one in done:
        table.add_row(
            one.graph,
            f"{one.height}x{one.width}",
            one.target,
            one.precision,
            "" if one.plugins is None else str(one.plugins),
            f"{one.size / 1e6:.1f} MB" if one.size else "",
            "was there" if one.cached else f"{one.seconds:.1f} s",
        )
    Console().print(table)


def _pair(text: str, pattern: str, option: str, form: str) -> tuple[int, int]:
    found = re.fullmatch(pattern, text)
    if not found or not int(found[1]):
        raise typer.BadParameter(f"{text!r} isn't {form}", param_hint=option)
    return int(found[1]), int(found[2])
