"""From a checkpoint to a bundle."""

from pathlib import Path

from keywarp.engines.bundle import Bundle, write_bundle
from keywarp.engines.manifest import ClassInfo, FeatureMap, FlowInput, ImagePreparation, Provenance
from keywarp.export.graphs import OPSET, graphs_of, round_weights, to_onnx
from keywarp.export.parity import check_parity
from keywarp.networks import FEATURE_STRIDE, IMAGE_MEAN, Checkpoint
from keywarp.networks.flownet import INPUT_DOWNSCALE


def export_bundle(checkpoint: Checkpoint, folder: Path) -> Bundle:
    """Export a checkpoint's networks, check the graphs against them and write the bundle.

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
    network = checkpoint.network()
    round_weights(network)
    graphs = {graph.file: to_onnx(graph) for graph in graphs_of(network)}
    check_parity(network, graphs)
    card = checkpoint.card
    return write_bundle(
        folder,
        graphs,
        name=card.name,
        version=card.version,
        task="segmentation",
        classes=tuple(ClassInfo(id=i, name=name, color=color) for i, (name, color) in enumerate(card.classes)),
        image=ImagePreparation(
            short_side=card.short_side, long_side=card.long_side, multiple=card.multiple, mean=IMAGE_MEAN
        ),
        features=(FeatureMap(name="features", stride=FEATURE_STRIDE, channels=checkpoint.options.channels),),
        flow=FlowInput(downscale=INPUT_DOWNSCALE),
        key_interval=card.key_interval,
        opset=OPSET,
        license=card.license,
        provenance=Provenance(recipe=card.recipe, data=card.data, accuracy=dict(card.accuracy), notes=card.notes),
    )
