"""Export of networks as a bundle."""

import copy
import math
import os
import warnings
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
    DenseSettings,
    DetectionSettings,
    FeatureSpec,
    FlowInput,
    ImagePreparation,
    Manifest,
    ManifestClass,
    Provenance,
    RegionDetection,
    SegmentationSettings,
    map_names,
)
from keywarp.engines.records import GraphFile
from keywarp.export.errors import ExportError
from keywarp.export.graphs import OPSET, Graph, graphs_of, round_weights, to_onnx
from keywarp.export.parity import check_parity
from keywarp.importing.motion_graphs import warp_graph
from keywarp.importing.palette import palette_color
from keywarp.networks import Checkpoint, DeepFeatureFlow, DetectionNetwork, ModelCard, RecognitionNetwork
from keywarp.networks.checkpoint import Color
from keywarp.networks.complexity import doubt_saving
from keywarp.networks.flownet import INPUT_DOWNSCALE
from keywarp.saving import SavingWarning


def export_bundle(checkpoint: Checkpoint, folder: Path) -> Bundle:
    """Export a checkpoint's networks as a bundle; see `export_network`.

    Args:
        checkpoint: The checkpoint.
        folder: The bundle's folder, which is created if it doesn't exist. An older bundle in it is replaced.

    Returns:
        The bundle, loaded from the folder.

    Raises:
        ExportError: If a graph can't be made, or its outputs differ from the network's. Nothing is written then.
        keywarp.networks.CheckpointError: If the weights don't fit the networks.
        keywarp.engines.errors.BundleError: If the written bundle can't be loaded.
        OSError: If the folder can't be written to.
    """
    return export_network(checkpoint.network(), checkpoint.card, folder)


def export_network(
    network: DeepFeatureFlow[Any],
    card: ModelCard,
    folder: str | os.PathLike[str],
    detection: DetectionSettings | None = None,
    quantity: str = "value",
    unit: str | None = None,
) -> Bundle:
    """Export networks as a bundle, after checking that its graphs compute what the networks do.

    If propagation saves little with these networks, a `SavingWarning` says why.

    Args:
        network: The networks, which are set to evaluation mode. The bundle holds their weights rounded to 16 bits; the
            networks themselves keep their weights.
        card: The description of the networks for the manifest.
        folder: The bundle's folder, which is created if it doesn't exist. An older bundle in it is replaced.
        detection: For detectors, how boxes are computed from the head's outputs. By default the network's own settings
            for R-FCN, and common ones for heads that return boxes.
        quantity: For dense maps, what the values are, such as "depth".
        unit: For dense maps, the unit of the values, such as "m", or None if there is none.

    Returns:
        The bundle, loaded from the folder.

    Raises:
        ExportError: If a graph can't be made, its outputs differ from the network's, or the card doesn't fit the
            network. Nothing is written then.
        keywarp.engines.errors.BundleError: If the written bundle can't be loaded.
        OSError: If the folder can't be written to.
    """
    fields = _manifest_fields(network.eval(), card, detection, quantity, unit)
    side = _example_side(network)
    if reason := doubt_saving(network.recognition, side, side):
        warnings.warn(SavingWarning(reason), stacklevel=2)
    with _rounded(network):
        graphs = {graph.file: _trace(graph) for graph in graphs_of(network) if graph.file != "warp.onnx"}
        graphs["warp.onnx"] = warp_graph(network.recognition.maps)
        check_parity(network, graphs)
    return write_bundle(Path(folder), graphs, **fields)


@contextmanager
def _rounded(network: nn.Module) -> Iterator[None]:
    """Round the weights inside the block, and restore the exact ones after it, so that training can continue."""
    exact = copy.deepcopy(network.state_dict())
    try:
        round_weights(network)
        yield
    finally:
        network.load_state_dict(exact)


def _trace(graph: Graph) -> onnx.ModelProto:
    try:
        return to_onnx(graph)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"{graph.file} can't be written as ONNX, opset {OPSET}: {reason}") from error


def _manifest_fields(
    network: DeepFeatureFlow[Any],
    card: ModelCard,
    detection: DetectionSettings | None,
    quantity: str,
    unit: str | None,
) -> dict[str, Any]:
    """Return the manifest's fields except the files, after validating them."""
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
            "motion": card.motion,
            "opset": OPSET,
            "license": card.license,
            "provenance": Provenance(
                recipe=card.recipe, data=card.data, accuracy=dict(card.accuracy), notes=card.notes
            ),
            **_task_fields(network, len(card.classes), detection, quantity, unit),
        }
        # Validate with made-up files, since tracing the graphs takes a while.
        Manifest(files=dict.fromkeys(GRAPHS, GraphFile(sha256="0" * 64, size=1)), **fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or e['type']}: {e['msg']}" for e in error.errors())
        raise ExportError(f"the model card can't be turned into a manifest: {faults}") from error
    return fields


def region_detection(recognition: RecognitionNetwork[Any]) -> RegionDetection:
    """Return a detector's `RegionOptions` as settings of the manifest.

    The two have the same fields: the networks know nothing of the engines, and the engines work without torch.
    """
    if not isinstance(recognition, DetectionNetwork):
        return RegionDetection()
    return RegionDetection(**asdict(recognition.regions))


def _class(number: int, named: str | tuple[str, Color]) -> ManifestClass:
    name, color = (named, palette_color(number)) if isinstance(named, str) else named
    return ManifestClass(id=number, name=name, color=color)


def _example_side(network: DeepFeatureFlow[Any]) -> int:
    """Return the side of a small square image, in pixels, which the strides divide."""
    recognition = network.recognition
    return math.lcm(recognition.multiple, *(m.stride for m in recognition.maps), 64)


def _task_fields(
    network: DeepFeatureFlow[Any], classes: int, detection: DetectionSettings | None, quantity: str, unit: str | None
) -> dict[str, Any]:
    """Return the manifest's task settings, after comparing them with the head's outputs for an example."""
    recognition = network.recognition
    side = _example_side(network)
    graph = graphs_of(network, side, side)[-1]
    with torch.inference_mode():
        outputs = dict(zip(graph.outputs, graph.module(*graph.example), strict=True))
    settings: dict[str, Any]
    if recognition.task == "dense":
        if classes:
            raise ExportError(f"a network for dense maps has no classes, but the card names {classes}: leave them out")
        stride = side // outputs["values"].shape[-1]
        return {"dense": DenseSettings(stride=stride, quantity=quantity, unit=unit)}
    if recognition.task == "segmentation":
        found = outputs["scores"].shape[1]
        settings = {"segmentation": SegmentationSettings(stride=side // outputs["scores"].shape[-1])}
    else:
        kind = detection or (DenseDetection() if "boxes" in outputs else region_detection(recognition))
        if isinstance(kind, DenseDetection) != ("boxes" in outputs):
            raise ExportError(f"{type(kind).__name__} doesn't fit a head that returns {', '.join(outputs)}")
        found = (
            outputs["scores"].shape[-1]
            if isinstance(kind, DenseDetection)
            else outputs["class_maps"].shape[-1] // kind.pooling**2
        )
        settings = {"detection": kind}
    if found != classes:
        raise ExportError(f"the head has {found} classes (with the background), but the card names {classes}")
    return settings
