"""`keywarp init`: a checkpoint of the paper's networks before any training."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keywarp.choices import FeatureNetworkName, FlowNetworkName, Task, WeightsLayout
from keywarp.cli.errors import CommandError
from keywarp.torch_commands.errors import importing

if TYPE_CHECKING:
    from keywarp.networks import ModelCard, ResNetFeatures


def init(
    out: Annotated[Path, typer.Argument(help="The checkpoint to write.", dir_okay=False)],
    task: Annotated[Task, typer.Option(help="The task.")] = "detection",
    features: Annotated[FeatureNetworkName, typer.Option(help="The feature network.")] = "resnet101",
    flow: Annotated[FlowNetworkName, typer.Option(help="The flow network.")] = "flownet",
    head_layers: Annotated[
        int, typer.Option(help="Layers that run on every frame: 0, 1, 5, 12 or 21 (the paper's Table 5).")
    ] = 1,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names of the classes, separated by commas, without the background.",
            show_default="ImageNet VID's or Cityscapes'",
        ),
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            min=16, max=8192, help="Short side of the images in pixels.", show_default="the paper's: 600 or 1024"
        ),
    ] = None,
    long_side: Annotated[
        int | None,
        typer.Option(
            min=16, max=8192, help="Longest side of the images in pixels.", show_default="the paper's: 1000 or 2048"
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="ImageNet weights of the feature network. Without them they are random.", metavar="FILE"),
    ] = None,
    layout: Annotated[
        WeightsLayout,
        typer.Option(help="Layout of --weights: a state dict, or for keras the folder of a TensorFlow.js model."),
    ] = "torchvision",
    flow_weights: Annotated[
        Path | None,
        typer.Option(help="FlowNet-S weights for --flow flownet. Without them they are random.", metavar="FILE"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the weights that aren't loaded.")] = 0,
) -> None:
    """Write a checkpoint of the paper's networks with ImageNet or random weights, before any training.

    The networks can't recognise anything yet. Exported, they show what they will cost on this machine before anybody
    trains them.

    Example: keywarp init resnet101.pt --task detection && keywarp export resnet101.pt --out models/resnet101
    """
    with importing("making networks"):
        import torch

        from keywarp.networks import (
            Checkpoint,
            CheckpointError,
            FlowNet,
            NetworkOptions,
            WeightsError,
            build_network,
            load_flownet_weights,
            read_weights,
            save_checkpoint,
        )
        from keywarp.networks.resnet import RESNET50, RESNET101

    card = _card(out.stem, task, classes, f"{features}: {weights.name if weights else 'random'}")
    card = replace(card, short_side=short_side or card.short_side, long_side=long_side or card.long_side)
    if card.long_side < card.short_side:
        fault = f"{card.long_side} is below the short side, {card.short_side}"
        raise typer.BadParameter(fault, param_hint="--long-side")
    if flow_weights is not None and flow != "flownet":
        raise typer.BadParameter(f"FlowNet-S's weights don't fit {flow}", param_hint="--flow-weights")
    if out.exists() and not force:
        raise CommandError(f"{out} exists; --force replaces it")
    torch.manual_seed(seed)
    try:
        options = NetworkOptions(
            classes=len(card.classes),
            task=task,
            blocks=RESNET50 if features == "resnet50" else RESNET101,
            stride_on="3x3" if weights is not None and layout == "torchvision" else "1x1",
            flow=flow,
            head_layers=head_layers,
        )
        network = build_network(options, lambda backbone: _load(backbone, weights, layout))
        if flow_weights is not None:
            assert isinstance(network.flow, FlowNet)  # as checked above
            load_flownet_weights(network.flow, read_weights(flow_weights))
        save_checkpoint(Checkpoint(options, card, network.state_dict()), out)
    except (CheckpointError, WeightsError, ValueError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"can't write {out}: {error.strerror}") from error
    parameters = sum(p.numel() for p in network.parameters())
    typer.echo(f"{out}: {features}, {flow}, {task} of {len(card.classes)} classes, {parameters:,} parameters")


def _card(name: str, task: Task, classes: str | None, weights: str) -> "ModelCard":
    """Describe untrained networks. Image sizes and key intervals are the paper's (section 5.1)."""
    from keywarp.datasets.classes import BACKGROUND, CITYSCAPES, IMAGENET_VID, distinct_colors
    from keywarp.networks import ModelCard

    if classes is not None:
        names = [part.strip() for part in classes.split(",") if part.strip()]
        if not names:
            raise typer.BadParameter("it names no class", param_hint="--classes")
        chosen = (BACKGROUND, *zip(names, distinct_colors(len(names)), strict=True))
    else:
        chosen = IMAGENET_VID if task == "detection" else CITYSCAPES
    return ModelCard(
        name="".join(c if c.isalnum() or c in "._-" else "-" for c in name.lower()).lstrip("._-")[:64] or "model",
        version="0.0.0",
        license="unlicensed",
        classes=chosen,
        short_side=600 if task == "detection" else 1024,
        long_side=1000 if task == "detection" else 2048,
        key_interval=10 if task == "detection" else 5,
        notes=f"Never trained for its task: it recognises nothing. Weights of {weights}.",
    )


def _load(backbone: "ResNetFeatures", weights: Path | None, layout: WeightsLayout) -> None:
    from keywarp.networks import load_caffe_weights, load_keras_weights, load_torchvision_weights, read_weights

    if weights is None:
        return
    if layout == "keras":
        load_keras_weights(backbone, weights)
    elif layout == "caffe":
        load_caffe_weights(backbone, read_weights(weights))
    else:
        load_torchvision_weights(backbone, read_weights(weights))
