"""From trained networks to a bundle."""

import copy
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from pydantic import ValidationError
from torch import nn

from keywarp.engines.bundle import Bundle, write_bundle
from keywarp.engines.manifest import (
    GRAPHS,
    DenseDetection,
    DetectionSettings,
    FeatureSpec,
    FlowInput,
    GraphFile,
    ImagePreparation,
    Manifest,
    ManifestClass,
    Provenance,
    RegionDetection,
    SegmentationSettings,
    map_names,
)
from keywarp.export.errors import ExportError
from keywarp.export.graphs import OPSET, Graph, graphs_of, round_weights, to_onnx
from keywarp.export.parity import check_parity
from keywarp.networks import Checkpoint, DeepFeatureFlow, DetectionNetwork, ModelCard, RecognitionNetwork
from keywarp.networks.checkpoint import Color
from keywarp.networks.flownet import INPUT_DOWNSCALE


def export_bundle(checkpoint: Checkpoint, folder: Path) -> Bundle:
    """Export a checkpoint's networks; see `export_network`.

    Args:
        checkpoint: What to export.
        folder: Where to; made if missing, an older bundle in it is replaced.

    Returns:
        The bundle, read back.

    Raises:
        ExportError: A graph can't be made, or differs from its network; nothing is written then.
        keywarp.networks.CheckpointError: The weights don't fit.
        keywarp.engines.errors.BundleError: What was written can't be read back.
        OSError: The folder can't be written to.
    """
    return export_network(checkpoint.network(), checkpoint.card, folder)


def export_network(
    network: DeepFeatureFlow[Any],
    card: ModelCard,
    folder: str | os.PathLike[str],
    detection: DetectionSettings | None = None,
) -> Bundle:
    """Export networks as a bundle, after checking that its graphs compute what they do.

    Args:
        network: The networks, which are set to evaluation mode. The bundle's weights are rounded to 16 bits; theirs are
            as before when this returns.
        card: What the manifest says of them.
        folder: Where to; made if missing, an older bundle in it is replaced.
        detection: For detectors, how boxes come out of the head's outputs; None: the paper's settings for R-FCN, common
            ones for heads that yield boxes.

    Returns:
        The bundle, read back.

    Raises:
        ExportError: A graph can't be made, or differs from its network; or the card doesn't fit the network. Nothing is
            written then.
        keywarp.engines.errors.BundleError: What was written can't be read back.
        OSError: The folder can't be written to.
    """
    fields = _describe(network.eval(), card, detection)
    with _rounded(network):
        graphs = {graph.file: _traced(graph) for graph in graphs_of(network)}
        check_parity(network, graphs)
    return write_bundle(Path(folder), graphs, **fields)


@contextmanager
def _rounded(network: nn.Module) -> Iterator[None]:
    """Round the weights, and put the exact ones back in the end: they may be someone's who goes on training."""
    exact = copy.deepcopy(network.state_dict())
    try:
        round_weights(network)
        yield
    finally:
        network.load_state_dict(exact)


def _traced(graph: Graph) -> onnx.ModelProto:
    try:
        return to_onnx(graph)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"{graph.file} can't be written as ONNX, opset {OPSET}: {reason}") from error


def _describe(network: DeepFeatureFlow[Any], card: ModelCard, detection: DetectionSettings | None) -> dict[str, Any]:
    """The manifest's fields, valid ones."""
    recognition = network.recognition
    names = map_names("features", len(recognition.maps))
    try:
        fields = {
            "name": card.name,
            "version": card.version,
            "task": recognition.task,
            "classes": tuple(map(_class, range(len(card.classes)), card.classes)),
            "image": ImagePreparation(
                short_side=card.short_side,
                long_side=card.long_side,
                multiple=math.lcm(card.multiple, recognition.multiple),
                mean=recognition.mean,
                std=recognition.std,
            ),
            "features": tuple(
                FeatureSpec(name=name, stride=m.stride, channels=m.channels)
                for name, m in zip(names, recognition.maps, strict=True)
            ),
            "flow": FlowInput(downscale=INPUT_DOWNSCALE),
            "key_interval": card.key_interval,
            "opset": OPSET,
            "license": card.license,
            "provenance": Provenance(
                recipe=card.recipe, data=card.data, accuracy=dict(card.accuracy), notes=card.notes
            ),
            **_settings(network, len(card.classes), detection),
        }
        # Valid but for the files, which take a while to make: faults are told before.
        Manifest(files=dict.fromkeys(GRAPHS, GraphFile(sha256="0" * 64, size=1)), **fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or e['type']}: {e['msg']}" for e in error.errors())
        raise ExportError(f"the card doesn't make a manifest: {faults}") from error
    return fields


def _regions(recognition: RecognitionNetwork[Any]) -> RegionDetection:
    """A detector's own settings; the paper's, where it has none."""
    if not isinstance(recognition, DetectionNetwork):
        return RegionDetection()
    return RegionDetection(**asdict(recognition.regions))


def _class(number: int, named: str | tuple[str, Color]) -> ManifestClass:
    name, color = (named, palette_color(number)) if isinstance(named, str) else named
    return ManifestClass(id=number, name=name, color=color)


def palette_color(number: int) -> Color:
    """The RGB colour of a class in the palette of PASCAL VOC, which is the common one: 0 is black.

    Three bits of the number at a time, from the lowest, are the next lower bits of red, green and blue.
    """
    red, green, blue = (sum((number >> 3 * n + channel & 1) << 7 - n for n in range(8)) for channel in range(3))
    return red, green, blue


def _settings(network: DeepFeatureFlow[Any], classes: int, detection: DetectionSettings | None) -> dict[str, Any]:
    """What the manifest says about reading the head's outputs, which are looked at on an example."""
    recognition = network.recognition
    side = math.lcm(recognition.multiple, *(m.stride for m in recognition.maps), 64)  # pixels; every stride divides it
    graph = graphs_of(network, side, side)[-1]
    with torch.inference_mode():
        outputs = dict(zip(graph.outputs, graph.module(*graph.example), strict=True))
    settings: dict[str, Any]
    if recognition.task == "segmentation":
        found = outputs["scores"].shape[1]
        settings = {"segmentation": SegmentationSettings(stride=side // outputs["scores"].shape[-1])}
    else:
        kind = detection or (DenseDetection() if "boxes" in outputs else _regions(recognition))
        if isinstance(kind, DenseDetection) != ("boxes" in outputs):
            raise ExportError(f"{type(kind).__name__} isn't for a head that yields {', '.join(outputs)}")
        found = (
            outputs["scores"].shape[-1]
            if isinstance(kind, DenseDetection)
            else outputs["class_maps"].shape[-1] // kind.pooling**2
        )
        settings = {"detection": kind}
    if found != classes:
        raise ExportError(f"the head tells {found} classes apart (with the background), the card names {classes}")
    return settings
