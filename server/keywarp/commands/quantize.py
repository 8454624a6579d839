"""`keywarp quantize`: give a bundle graphs in int8."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from keywarp.cli.errors import CommandError
from keywarp.cli.files import check_writable, write_errors
from keywarp.cli.options import AsStoredOption, StoredVideoOption
from keywarp.clips.opening import open_clip
from keywarp.clips.options import AllowDamageOption
from keywarp.clips.ranges import RangeOption, chosen_range
from keywarp.commands.bundles import find_bundle
from keywarp.commands.options import MODELS, BundleArgument, JsonOption, ModelsOption, ThreadsOption
from keywarp.commands.progress import stage_bar
from keywarp.engines import AVAILABLE, EngineError
from keywarp.engines.bundle import save_bundle
from keywarp.importing.draft import model_name
from keywarp.quantization import Options, QuantizationError, Quantized
from keywarp.quantization import quantize as quantize_bundle
from keywarp.quantization.quantizing import MAX_SECONDS, TOLERANCE


def quantize(
    name: BundleArgument,
    calibrate: Annotated[
        list[str],
        typer.Option(
            help="A video of what the bundle will see. Parts of it are held out to judge on. May be repeated.",
            metavar="VIDEO",
            show_default=False,
        ),
    ],
    seconds: RangeOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the new bundle.", metavar="FOLDER", file_okay=False, show_default="the bundle's own"
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.5, max=1, help="The least agreement with the results in fp32, 0 to 1.")
    ] = TOLERANCE,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="A backend to judge and measure on; the first one decides. May be repeated.",
            metavar="BACKEND",
            show_default=", ".join(AVAILABLE),
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=1, help="The most seconds that the search of sensitive layers may take, about.")
    ] = MAX_SECONDS,
    models: ModelsOption = MODELS,
    threads: ThreadsOption = 0,
    as_stored: AsStoredOption = False,
    video: StoredVideoOption = None,
    allow_damage: AllowDamageOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give a bundle graphs in int8, which are faster on processors with instructions for it.

    The command quantises the bundle's heavy graphs with ranges that it sees
    on frames of your videos. It compares the results with those in fp32 on
    other frames, and leaves sensitive layers in fp32 until they agree within
    the tolerance. It writes nothing if that can't be reached, or if int8
    isn't faster on this device.

    Example: keywarp quantize models/street --calibrate street.mp4 && keywarp run street.mp4 --model street

    Example: keywarp quantize models/street --calibrate gate.mkv --video 1 --as-stored --allow-damage
    """
    bundle = find_bundle(name, models)
    unknown = [choice for choice in backend or () if choice not in AVAILABLE]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} isn't a backend for the CPU that is installed: {', '.join(AVAILABLE) or 'none'}",
            param_hint="--backend",
        )
    window = chosen_range(seconds)
    folder = out or bundle.path
    clips = [
        open_clip(path, window, as_stored=as_stored, number=video, allow_damage=allow_damage) for path in calibrate
    ]
    check_writable(folder)
    console = Console(stderr=as_json)  # so that the JSON stands alone
    try:
        options = Options(
            tolerance=tolerance,
            backends=tuple(dict.fromkeys(backend or AVAILABLE)),  # type: ignore[arg-type]
            threads=threads,
            max_seconds=max_seconds,
        )
        with stage_bar() as show, write_errors(folder):
            # In another folder it has the folder's name, since a server takes no two bundles of one name.
            new = None if folder.resolve() == bundle.path.resolve() else model_name(folder.resolve().name)
            quantized = quantize_bundle(bundle, clips, options, folder=folder, name=new, progress=show)
            save_bundle(quantized.bundle)
    except (QuantizationError, EngineError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        typer.echo(json.dumps(_figures(quantized, folder), indent=2))
    else:
        _print(quantized, folder, console)


def _print(quantized: Quantized, folder: Path, console: Console) -> None:
    graphs = Table(box=box.SIMPLE_HEAD)
    for column in ("graph", "before", "int8", ""):
        graphs.add_column(column, justify="left" if column in ("graph", "") else "right")
    for name, times in quantized.graphs.items():
        verdict = "quantised" if times.pays else "left as it is: int8 doesn't pay"
        if times.frame_before is not None and times.frame_quantized is not None:
            verdict += f" (a frame with it {_ms(times.frame_before)}, in int8 {_ms(times.frame_quantized)})"
        graphs.add_row(name, _ms(times.before), _ms(times.quantized), verdict)
    _title(console, "Graphs by themselves:")
    console.print(graphs)
    if quantized.unquantized:
        layers = Table(box=box.SIMPLE_HEAD)
        layers.add_column("layer")
        layers.add_column("costs", justify="right")
        for layer, cost in quantized.unquantized.items():
            layers.add_row(layer, "" if cost is None else _ms(cost))
        _title(console, "Sensitive layers that stay in fp32:")
        console.print(layers)
    if not quantized.complete:
        console.print("Time ran out: perhaps fewer layers in fp32 would do (--max-seconds).", style="yellow")
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("backend", "precision", "agreement", "key", "propagated"):
        table.add_column(column, justify="left" if column in ("backend", "precision") else "right")
    for trial in quantized.trials:
        for precision, frames in trial.times.items():
            judged = f"{100 * trial.judgement.key:.2f} %, {100 * trial.judgement.propagated:.2f} %"
            shown = judged if precision == "int8" else ""
            table.add_row(trial.backend, precision, shown, _ms(frames.key), _ms(frames.propagated))
    _title(console, f"Agreement with fp32 on held-out frames ({quantized.measure}), and what a frame takes:")
    console.print(table)
    for trial in quantized.trials:
        if not trial.is_kept(quantized.tolerance):
            console.print(
                f"With {trial.backend}, precision auto doesn't take int8: it isn't within the tolerance and faster.",
                highlight=False,
                soft_wrap=True,
            )
    manifest = quantized.bundle.manifest
    size = sum(file.size for file in manifest.precisions["int8"].files.values())
    _title(console, f"{folder}: {manifest.name}, {size / 1e6:.1f} MB of graphs in int8")
    console.print(f"Next: keywarp bench engine --model {folder}", style="dim", highlight=False, soft_wrap=True)


def _title(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms"


def _figures(quantized: Quantized, folder: Path) -> dict[str, Any]:
    """Return the figures for JSON."""
    return {
        "bundle": str(folder),
        "measure": quantized.measure,
        "tolerance": quantized.tolerance,
        "graphs": {
            name: {
                "before_ms": times.before,
                "int8_ms": times.quantized,
                "frame_before_ms": times.frame_before,
                "frame_int8_ms": times.frame_quantized,
                "quantized": times.pays,
            }
            for name, times in quantized.graphs.items()
        },
        "unquantized": {layer: {"cost_ms": cost} for layer, cost in quantized.unquantized.items()},
        "complete": quantized.complete,
        "backends": [
            {
                "backend": trial.backend,
                "device": trial.device,
                "key_agreement": trial.judgement.key,
                "propagated_agreement": trial.judgement.propagated,
                "ms": {p: {"key": t.key, "propagated": t.propagated} for p, t in trial.times.items()},
                "auto": trial.is_kept(quantized.tolerance),
            }
            for trial in quantized.trials
        ],
    }
