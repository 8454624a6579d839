"""From a model file to a bundle: read it, cut it, recognise its outputs, build the graphs, measure and check them."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ValidationError

from keywarp.engines import Bundle, MotionName
from keywarp.engines.bundle import make_bundle, save_bundle
from keywarp.engines.manifest import FeatureSpec, FlowInput, HeldSpec, ManifestClass, Provenance, map_names
from keywarp.importing.candidates import Candidate, find_candidates, named_candidate
from keywarp.importing.checks import Check, check_bundle, prepare
from keywarp.importing.costs import measure_costs
from keywarp.importing.decoders import append_decoder, dense_settings, gives_logits, segmentation_settings
from keywarp.importing.errors import ImportingError
from keywarp.importing.findings import Findings
from keywarp.importing.formats import recognise
from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.mask_sets import with_scores
from keywarp.importing.model_file import ImportedModel, read_model
from keywarp.importing.motion_graphs import flow_graph, warp_graph
from keywarp.importing.opsets import opset_of
from keywarp.importing.palette import palette_color
from keywarp.importing.preparation import Preparation, PreparationHints, guess_preparation
from keywarp.importing.result_format import DenseLayout, Hints, ResultFormat
from keywarp.importing.selection import without_selection
from keywarp.importing.splitting import split
from keywarp.importing.weights import store_in_16_bits

DOWNSCALE = FlowInput().downscale  # of the images that motion is estimated on, if it divides the finest stride
KEY_INTERVAL = 5  # the default of imported bundles, whose flow network doesn't know their features yet
MOTION: MotionName = "dis-chained-repaired"  # the best source that needs no training (docs/compare.md)

Frame = NDArray[np.uint8]
Progress = Callable[[str], None]  # is told what begins


@dataclass(frozen=True)
class ImportOptions:
    """What a user says about a model file. None and empty values are left to guesses and defaults."""

    name: str | None = None  # the model's name; by default made of the file's
    size: tuple[int, int] | None = None  # the image's height and width in pixels
    cut: tuple[str, ...] = ()  # the tensors to cut at
    result: Hints = field(default_factory=Hints)
    preparation: PreparationHints = field(default_factory=PreparationHints)
    license: str | None = None  # of the weights
    motion: MotionName = MOTION


@dataclass(frozen=True)
class Draft(Findings):
    """A bundle that isn't written yet, and what was found out about the file that it is made of."""

    model: ImportedModel
    bundle: Bundle  # in memory
    whole: onnx.ModelProto  # the network in one graph, with the outputs of the bundle's head

    @property
    def findings(self) -> Findings:
        """What was found out, without the graphs."""
        return Findings(**{each.name: getattr(self, each.name) for each in fields(Findings)})

    def check(self, frames: Sequence[Frame]) -> Iterator[Check]:
        """Check the bundle on frames. See `check_bundle`."""
        return check_bundle(self.bundle, self.whole, frames)

    def write(self, folder: Path) -> Bundle:
        """Write the bundle; an older one in the folder is replaced.

        Raises:
            OSError: If the folder can't be written to.
            keywarp.engines.BundleError: If the written bundle can't be loaded.
        """
        return save_bundle(replace(self.bundle, path=folder))


def draft_bundle(
    file: Path, options: ImportOptions, frames: Sequence[Frame], progress: Progress = lambda _: None
) -> Draft:
    """Make a bundle of a model file in memory.

    Args:
        file: The file.
        options: What the user says.
        frames: Two or more consecutive frames to measure on, uint8 (H, W, 3) in RGB.
        progress: Is told what begins.

    Raises:
        ImportingError: If the file can't be read, can't be cut, or its outputs aren't understood.
        keywarp.engines.EngineError: If its graphs can't be run.
    """
    progress("reading the file")
    model = read_model(file, options.size)
    progress("recognising the outputs")
    try:
        image = prepare(frames[0], guess_preparation(model, None, options.preparation).image)
        model, result = _recognised(model, options.result, image)
        preparation = guess_preparation(model, result, options.preparation)
    except ValidationError as error:
        raise _bad_manifest(file, error) from error
    model = _without_other_outputs(model, result)
    progress("looking for cuts")
    candidates, chosen = _cuts(model, options.cut)
    cut = candidates[chosen]
    progress("building the graphs")
    features, head = split(model, cut)
    graphs = {
        "features.onnx": features,
        "flow.onnx": flow_graph(cut.maps, opset_of(features), _downscale(cut)),
        "warp.onnx": warp_graph(cut.maps, opset_of(features)),
        "head.onnx": append_decoder(head, result, model.height, model.width),
    }
    whole = append_decoder(model.model, result, model.height, model.width)
    for name in ("features.onnx", "head.onnx"):
        store_in_16_bits(graphs[name])
    try:
        manifest = _fields(file, model, cut, result, preparation, graphs, options)
        if gives_logits(head, result.layout, model.height, model.width):
            manifest["segmentation"] = manifest["segmentation"].model_copy(update={"logits": True})
        bundle = make_bundle(Path(manifest["name"]), graphs, **manifest)
    except ValidationError as error:
        raise _bad_manifest(file, error) from error
    progress("measuring frames")
    measured = measure_costs(bundle, cut, frames)
    return Draft(
        producer=model.producer,
        height=model.height,
        width=model.width,
        candidates=tuple(candidates),
        chosen=chosen,
        result=result,
        preparation=preparation,
        measured=measured,
        model=model,
        bundle=bundle,
        whole=whole,
    )


def _recognised(model: ImportedModel, hints: Hints, image: NDArray[np.float32]) -> tuple[ImportedModel, ResultFormat]:
    """Return what the outputs mean, and the model with these outputs.

    If possible, it is without its selection of objects. Sets of masks become scores.
    """
    if hints.outputs is None and hints.task in (None, "detection") and (places := without_selection(model)):
        own = places.background(len(hints.class_names or ()))
        told = replace(hints, boxes=hints.boxes or places.boxes, background=hints.background or own)
        result = recognise(places.model, told, image)
        guess = f"{result.guess}; the file's own suppression of overlaps is left out"
        return places.model, replace(result, guess=guess)
    return with_scores(model, recognise(model, hints, image))


def _cuts(model: ImportedModel, tensors: Sequence[str]) -> tuple[list[Candidate], int]:
    """Return where a network can be cut, best first, and the index of the cut at given tensors, or of the best one.

    Raises:
        ImportingError: If there is none.
    """
    # Motion on images of half the size costs less, and cells of odd strides don't cover whole pixels of these.
    candidates, chosen = sorted(find_candidates(model), key=_downscale, reverse=True), 0
    if tensors:
        named = named_candidate(model, tensors)
        same = [c for c in candidates if {m.tensor for m in c.maps} == set(tensors)]
        candidates = candidates if same else [*candidates, named]
        chosen = candidates.index(same[0] if same else named)
    if not candidates:
        raise ImportingError(
            "the network can't be cut: no set of maps that move with the image separates the image from the results, "
            "so propagation can't be used with it"
        )
    return candidates, chosen


def _downscale(cut: Candidate) -> int:
    """Return the factor by which the images that motion is estimated on are smaller than the network's."""
    return 1 if min(m.stride for m in cut.maps) % DOWNSCALE else DOWNSCALE


def _bad_manifest(file: Path, error: ValidationError) -> ImportingError:
    faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or e['type']}: {e['msg']}" for e in error.errors())
    return ImportingError(f"{file.name} can't be described by a manifest: {faults}")


def _without_other_outputs(model: ImportedModel, result: ResultFormat) -> ImportedModel:
    """Return the model without outputs that its result isn't read from, and without what only they need."""
    graph = Graph(model.model)
    used = [output for output in model.outputs if output.name in result.layout.tensors]
    names = [output.name for output in used]
    nodes = [graph.nodes[index] for index in graph.needed(names)]
    part = graph.part("network", nodes, [graph.value(IMAGE)], [graph.value(name) for name in names])
    part.graph.value_info.extend(model.model.graph.value_info)
    return replace(model, model=part, outputs=tuple(used))


def _fields(
    file: Path,
    model: ImportedModel,
    cut: Candidate,
    result: ResultFormat,
    preparation: Preparation,
    graphs: dict[str, onnx.ModelProto],
    options: ImportOptions,
) -> dict[str, Any]:
    """Return the manifest's fields."""
    names = map_names("features", len(cut.maps))
    shift = 0 if result.background else 1  # in the palette, whose first colour is the background's black
    manifest = {
        "name": options.name or model_name(file.stem),
        "version": "1.0.0",
        "task": result.task,
        "classes": tuple(
            ManifestClass(id=number, name=name, color=palette_color(number + shift))
            for number, name in enumerate(result.class_names)
        ),
        "image": preparation.image,
        "features": tuple(
            FeatureSpec(name=name, stride=m.stride, channels=m.channels)
            for name, m in zip(names, cut.maps, strict=True)
        ),
        "held": _held(graphs["features.onnx"]),
        "flow": FlowInput(downscale=_downscale(cut)),
        "key_interval": KEY_INTERVAL,
        "motion": options.motion,
        "opset": opset_of(graphs["features.onnx"]),
        "license": options.license or model.metadata.get("license") or "unknown",
        "provenance": Provenance(
            data=model.metadata.get("description", ""),
            notes=f"Imported from {file.name} (SHA-256 {_digest(file)[:12]}..., {model.producer or 'unknown exporter'})"
            f", cut at {', '.join(m.tensor for m in cut.maps)}.",
        ),
    }
    if result.task == "segmentation":
        settings = segmentation_settings(graphs["head.onnx"], model.height, model.width)
        return {**manifest, "background": result.background, "segmentation": settings}
    if isinstance(result.layout, DenseLayout):
        return {**manifest, "dense": dense_settings(graphs["head.onnx"], result.layout, model.height, model.width)}
    return {**manifest, "detection": result.detection}


def _held(features: onnx.ModelProto) -> tuple[HeldSpec, ...]:
    """Return the tensors that the feature network gives besides its maps."""
    return tuple(
        HeldSpec(name=output.name, shape=tuple(d.dim_value for d in output.type.tensor_type.shape.dim))
        for output in features.graph.output
        if re.fullmatch(r"held(_\d+)?", output.name)
    )


def model_name(text: str) -> str:
    """Return a name for a model, which has small letters, digits, dots, dashes and underscores only."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "imported"


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
