"""Writing an adapted bundle: the same networks with other weights, and a manifest that tells where they come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from keywarp.adaptation.errors import AdaptationError
from keywarp.adaptation.torch_graph import TorchGraph
from keywarp.engines import Bundle, write_bundle
from keywarp.engines.backends.ort import ort
from keywarp.engines.manifest import GRAPHS, Provenance
from keywarp.importing.draft import model_name

TOLERANCE = 1e-3  # largest difference between torch and ONNX Runtime, relative to an output's largest value
SIZES = ((128, 224, 1), (97, 131, 2))  # height, width, batch of the images for that comparison


def write_adapted(
    bundle: Bundle,
    folder: Path,
    graphs: Mapping[str, onnx.ModelProto],
    motion: str,
    videos: Sequence[str],
    facts: Mapping[str, Any],
) -> Bundle:
    """Write a bundle with some of its graphs replaced.

    In another folder it has the folder's name, since a server takes no two bundles of one name.

    Args:
        bundle: The bundle that was adapted.
        folder: The new bundle's folder.
        graphs: The graphs that are new, by file name.
        motion: The default motion source.
        videos: The names of the videos that it was adapted to.
        facts: How it was adapted and what came out, for the manifest's provenance.

    Raises:
        keywarp.engines.BundleError: If the written bundle can't be loaded.
        OSError: If the folder can't be written to.
    """
    manifest = bundle.manifest
    fields = manifest.model_dump(exclude={"files", "precisions", "schema_version"})
    before = manifest.provenance
    name = manifest.name if folder.name == bundle.path.name else model_name(folder.resolve().name)
    fields |= {
        "name": name,
        "motion": motion,
        "version": _next_version(manifest.version),
        "provenance": Provenance(
            recipe=before.recipe,
            data="; ".join(part for part in (before.data, f"adapted to {', '.join(videos)}") if part),
            accuracy={**before.accuracy, "adaptation": dict(facts)},
            notes=before.notes,
        ),
    }
    return write_bundle(folder, {name: graphs.get(name) or bundle.graph(name) for name in GRAPHS}, **fields)


def check_graph(graph: TorchGraph, model: onnx.ModelProto, name: str) -> float:
    """Compare a graph of two images in ONNX Runtime with its module in PyTorch, on random images of several sizes.

    Args:
        graph: The module.
        model: The graph.
        name: The graph's name for error messages.

    Returns:
        The largest difference, relative to the output's largest value.

    Raises:
        AdaptationError: If a difference is above `TOLERANCE`.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    worst = 0.0
    for height, width, batch in SIZES:
        images = {
            value.name: random.normal(0, 60, (batch, 3, height, width)).astype(np.float32)
            for value in model.graph.input
        }
        with torch.inference_mode():
            wanted = graph(**{key: torch.from_numpy(image) for key, image in images.items()})
        for key, found in zip(wanted, session.run(list(wanted), images), strict=True):
            reference = wanted[key].numpy()
            worst = max(worst, float(np.abs(found - reference).max() / max(np.abs(reference).max(), 1e-6)))
    if not worst <= TOLERANCE:  # true for NaN as well
        raise AdaptationError(f"{name}: ONNX Runtime and PyTorch differ by {worst:.1e} of the largest value")
    return worst


def _next_version(version: str) -> str:
    major, minor, patch = version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"
