"""Checks that a bundle computes what the whole network does, on real frames."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from keywarp.engines import AVAILABLE, Backend, Bundle, Detections, Engine, Manifest, Output, open_backend
from keywarp.engines.comparison.agreement import open_measure
from keywarp.engines.fusion import FLOW, LABELS
from keywarp.engines.manifest import ImagePreparation, map_names
from keywarp.engines.parity import fix_shapes
from keywarp.engines.postprocessing import open_postprocessor
from keywarp.engines.preparation import place, resize
from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import IMAGE

if TYPE_CHECKING:
    from keywarp.engines.backends.interface import Program

TOLERANCE = 1e-3  # largest difference of outputs, as a share of an output's largest value
AGREEMENT = 0.99  # least agreement of results where outputs differ more: mIoU of labels, F1 of boxes
# The same by masks and keypoints. Among many boxes with equal scores, as untrained networks give them, rounding decides
# which are selected. Their boxes nearly agree, their masks and keypoints don't.
OBJECT_AGREEMENT = 0.9

Frame = NDArray[np.uint8]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Check:
    """What a check found."""

    name: str  # what was compared with what, on which runtime
    difference: float  # the largest one, as a share of an output's largest value
    agreement: float  # of the results, 0..1

    @property
    def passed(self) -> bool:
        """Whether the two are the same, up to rounding and to the order of objects with nearly equal scores."""
        return self.difference <= TOLERANCE or self.agreement >= AGREEMENT

    def __str__(self) -> str:
        if self.difference <= TOLERANCE:
            return f"{self.name}: equal to {max(self.difference, 1e-7):.0e}"
        return f"{self.name}: {'the same' if self.passed else 'different'} results, {self.agreement:.1%} agreement"


class NoMotion:
    """A flow that finds no motion."""

    name = "no motion"

    def estimate(self, current: Frame, key: Frame) -> NDArray[np.float32]:  # noqa: ARG002
        """See `OpticalFlow.estimate`."""
        return np.zeros((*current.shape[:2], 2), np.float32)


def check_bundle(bundle: Bundle, whole: onnx.ModelProto, frames: Sequence[Frame]) -> Iterator[Check]:
    """Check a bundle on frames, on every runtime for the CPU that is installed, in 32 bits.

    Args:
        bundle: The bundle.
        whole: The network in one graph, `image` -> the outputs of the bundle's head.
        frames: The frames, uint8 (H, W, 3) in RGB.

    Yields:
        For each runtime: whether the feature network and the head give what the whole network does; whether a key
        frame's result is the whole network's; and whether a frame to which nothing moved has the key frame's result.

    Raises:
        ImportingError: If a check fails.
        keywarp.engines.EngineError: If a graph can't be run.
    """
    for name in AVAILABLE:
        yield from map(_required, _check_on(name, bundle, whole, frames))


def _required(check: Check) -> Check:
    """Return a check that passed.

    Raises:
        ImportingError: If it failed.
    """
    if not check.passed:
        raise ImportingError(
            f"{check.name}: outputs differ by {check.difference:.0e} of the largest value, and results agree to "
            f"{check.agreement:.1%}: choose another cut with --cut"
        )
    return check


def _check_on(name: str, bundle: Bundle, whole: onnx.ModelProto, frames: Sequence[Frame]) -> Iterator[Check]:
    backend = open_backend(name, "fp32")  # type: ignore[arg-type]  # AVAILABLE holds names of backends
    manifest = bundle.manifest
    program = backend.compile(whole)
    images = [prepare(frame, manifest.image) for frame in frames]
    expected = [_copied(program.run({IMAGE: image})) for image in images]
    results = [_result(manifest, outputs, frame) for outputs, frame in zip(expected, frames, strict=True)]
    del program

    joined = _joined(backend, bundle, images)
    differences = [_difference(found, wanted) for found, wanted in zip(joined, expected, strict=True)]
    found = [_result(manifest, outputs, frame) for outputs, frame in zip(joined, frames, strict=True)]
    title = f"{backend.name}: features and head against the whole network"
    yield Check(title, max(differences), _agreement(manifest, found, results))

    engine = Engine(bundle, backend=name, precision="fp32", motion=NoMotion())  # type: ignore[arg-type]
    try:
        keys, moved = [], []
        for frame in frames:
            result, state = engine.key(frame)
            keys.append(result.output)
            moved.append(engine.propagate(frame, state).output)
    finally:
        engine.close()
    title = f"{backend.name}: key frames against the whole network"
    yield Check(title, np.inf, _agreement(manifest, keys, results))
    unmoved = _joined(backend, bundle, images, warped=True)
    differences = [_difference(found, wanted) for found, wanted in zip(unmoved, joined, strict=True)]
    title = f"{backend.name}: frames without motion against their key frames"
    yield Check(title, max(differences), _agreement(manifest, moved, keys))


def _joined(
    backend: Backend, bundle: Bundle, images: Sequence[NDArray[np.float32]], warped: bool = False
) -> list[Arrays]:
    """Run the feature network and then the head on each image, with a warp without motion between them if asked to."""
    parts: list[Program] = [backend.compile(bundle.graph(f"{part}.onnx")) for part in ("features", "head")]
    manifest = bundle.manifest
    maps = map_names("features", len(manifest.features))
    names = [*maps, *(held.name for held in manifest.held)]
    found = []
    for image in images:
        given = parts[0].run({IMAGE: image})
        features = {name: np.array(given[name]) for name in names}
        if warped:
            still = _warp_without_motion(backend, bundle, {name: features[name] for name in maps})
            features |= dict(zip(maps, still.values(), strict=True))
        found.append(_copied(parts[1].run(features)))
    return found


def _warp_without_motion(backend: Backend, bundle: Bundle, features: Arrays) -> Arrays:
    """Return the maps that the warp gives if nothing moves."""
    flow = np.zeros((1, 2, *features[bundle.manifest.finest.name].shape[2:]), np.float32)
    scales = [np.ones_like(value) for value in features.values()]
    inputs = {**features, FLOW: flow, **dict(zip(map_names("scale", len(scales)), scales, strict=True))}
    graph = fix_shapes(bundle.graph("warp.onnx"), {name: value.shape for name, value in inputs.items()})
    outputs = _copied(backend.compile(graph).run(inputs))
    return {name: outputs[name] for name in map_names("warped", len(features))}


def prepare(frame: Frame, image: ImagePreparation) -> NDArray[np.float32]:
    """Return a frame as the network takes it, (1, 3, H, W), computed without the engine's graphs."""
    placement = place(frame.shape[0], frame.shape[1], image)
    picture = placement.pad(resize(frame, placement.rows, placement.columns), image.pad)
    pixels = picture if image.channel_order == "rgb" else picture[..., ::-1]
    mean, std = np.array(image.mean, np.float32), np.array(image.std, np.float32)
    normal = (pixels.astype(np.float32) - mean) / std
    return np.ascontiguousarray(normal.transpose(2, 0, 1))[np.newaxis]


def _result(manifest: Manifest, outputs: Arrays, frame: Frame) -> Output:
    """Return the result of a head's outputs."""
    placement = place(frame.shape[0], frame.shape[1], manifest.image)
    if manifest.task == "segmentation":
        outputs = {LABELS: _labels(outputs["scores"], placement.height, placement.width)}
    return open_postprocessor(manifest, *placement.size).run(outputs, placement, *frame.shape[:2])


def _labels(scores: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Return the best class at each pixel, (1, H, W), after bilinear enlargement of the scores."""
    large = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in scores[0]])
    return np.asarray(large.argmax(axis=0)[np.newaxis], np.uint8)


def _difference(found: Arrays, expected: Arrays) -> float:
    """Return the largest difference of outputs, as a share of an output's largest value."""
    worst = 0.0
    for name, wanted in expected.items():
        if found[name].shape != wanted.shape:
            return np.inf
        if wanted.size:
            largest = max(float(np.abs(wanted).max()), 1e-6)
            difference = float(np.abs(found[name].astype(np.float64) - wanted).max()) / largest
            worst = max(worst, difference if np.isfinite(difference) else np.inf)
    return worst


def _agreement(manifest: Manifest, found: Sequence[Output], expected: Sequence[Output]) -> float:
    """Return the agreement of results; that of boxes only, if objects agree well enough by masks and keypoints."""
    measure = open_measure(manifest)

    def total(found: Iterable[Output], expected: Iterable[Output]) -> float:
        counts = [measure.count(one, other) for one, other in zip(found, expected, strict=True)]
        return measure.agreement(np.sum(counts, axis=0))

    agreement = total(found, expected)
    if agreement < OBJECT_AGREEMENT:
        return agreement
    return max(agreement, total(map(_boxes_only, found), map(_boxes_only, expected)))


def _boxes_only(output: Output) -> Output:
    return replace(output, masks=None, keypoints=None) if isinstance(output, Detections) else output


def _copied(outputs: Mapping[str, Any]) -> Arrays:
    """Copy a program's outputs, which belong to it."""
    return {name: np.array(value) for name, value in outputs.items()}
