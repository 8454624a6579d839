"""Measures what detection costs on a propagated frame in addition to the networks, and in which stages.

It takes a bundle with an R-FCN head. Three things are timed in turns, and their medians printed: the propagated frame's
graph, cut off after its last convolutions; the whole graph, which also arranges the maps for the host; and the stages
on the host, with the graph's own output and with proposals that cluster around objects like a trained network's.

Example: python bench/detection.py models/vid --json
"""

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from keywarp.engines.backends import AVAILABLE, BackendName, Program, open_backend
from keywarp.engines.bundle import Bundle, load_bundle
from keywarp.engines.detection import RegionDetector
from keywarp.engines.detection.anchors import grid_anchors
from keywarp.engines.detection.boxes import decode, nonempty
from keywarp.engines.detection.ranking import best_indices
from keywarp.engines.detection.regions import ANCHOR_DELTAS, BOX_MAPS, CLASS_MAPS, OBJECTNESS
from keywarp.engines.detection.suppression import suppress
from keywarp.engines.fusion import fuse_propagate
from keywarp.engines.manifest import RegionDetection

ARRANGING = ("Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten")  # operators that compute nothing
OBJECTS = 20  # objects around which proposals cluster
UNIT_STD = (1.0, 1.0, 1.0, 1.0)
STAGES = ("candidates", "decoding", "proposal suppression", "classification", "pooling of boxes", "selection")

Array = NDArray[np.float32]
Outputs = dict[str, Array]
Result = TypeVar("Result")


class Clock:
    """Records the times of repeated steps by name."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def time(self, name: str, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a step and record its time."""
        started = time.perf_counter()
        result = function(*arguments)
        self._seconds[name].append(time.perf_counter() - started)
        return result

    def medians(self) -> dict[str, float]:
        """Return the median time of each step in seconds."""
        return {name: statistics.median(times) for name, times in self._seconds.items()}


def up_to_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without the nodes that only rearrange the maps."""
    producers = {name: node for node in model.graph.node for name in node.output}
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.output[:]
    for output in model.graph.output:
        name = output.name
        while producers[name].op_type in ARRANGING:
            name = producers[name].input[0]
        bare.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return bare


def random_inputs(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Make a frame of noise, and key features like those after a ReLU."""
    random, inputs = np.random.default_rng(0), {}
    for value in model.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            inputs[value.name] = random.integers(0, 256, shape, np.uint8)
        else:
            inputs[value.name] = random.random(shape, np.float32)
    return inputs


def clustered(settings: RegionDetection, height: int, width: int) -> Outputs:
    """Make proposal maps like a trained network's: anchors that overlap an object score high and lead to its box."""
    random = np.random.default_rng(0)
    rows, columns = -(-height // settings.stride), -(-width // settings.stride)
    anchors = grid_anchors(settings, rows, columns)
    image = np.array([width, height])
    centres, sizes = random.random((OBJECTS, 2)) * image, (0.05 + 0.4 * random.random((OBJECTS, 2))) * image
    first, last = centres - sizes / 2, centres + sizes / 2
    anchor_sizes, anchor_centres = anchors[:, 2:] - anchors[:, :2], (anchors[:, 2:] + anchors[:, :2]) / 2
    shared = np.minimum(anchors[:, np.newaxis, 2:], last) - np.maximum(anchors[:, np.newaxis, :2], first)
    intersection = shared.clip(0).prod(axis=2)
    overlap = intersection / (anchor_sizes.prod(axis=1)[:, np.newaxis] + sizes.prod(axis=1) - intersection)
    nearest = overlap.argmax(axis=1)
    exact = [(centres[nearest] - anchor_centres) / anchor_sizes, np.log(sizes[nearest] / anchor_sizes)]
    deltas = np.concatenate(exact, axis=1) + random.normal(0, 0.15, anchors.shape)
    odds = 10 * overlap.max(axis=1) - 5 + random.normal(0, 0.5, len(anchors))
    return {
        OBJECTNESS: odds.reshape(1, rows, columns, -1).astype(np.float32),
        ANCHOR_DELTAS: deltas.reshape(1, rows, columns, -1).astype(np.float32),
    }


def run_stages(
    clock: Clock,
    prefix: str,
    settings: RegionDetection,
    detector: RegionDetector,
    outputs: Outputs,
    size: tuple[int, int],
) -> int:
    """Run `RegionDetector.detect` step by step, and return the number of proposals."""
    _, rows, columns, _ = outputs[OBJECTNESS].shape
    height, width = size
    anchors = grid_anchors(settings, rows, columns)

    def decoded(candidates: NDArray[np.intp]) -> Array:
        deltas = outputs[ANCHOR_DELTAS].reshape(-1, 4)[candidates]
        boxes = decode(deltas, anchors[candidates], UNIT_STD, height, width)
        return boxes[nonempty(boxes)]

    def suppressed(boxes: Array) -> Array:
        groups = np.zeros(len(boxes), np.intp)
        return boxes[suppress(boxes, groups, settings.proposal_iou, settings.proposals)]

    names = [f"{prefix}: {stage}" for stage in STAGES]
    candidates = clock.time(names[0], best_indices, outputs[OBJECTNESS].reshape(-1), settings.candidates)
    boxes = clock.time(names[1], decoded, candidates)
    regions = clock.time(names[2], suppressed, boxes)
    possible, scores = clock.time(names[3], detector.classify, regions, outputs[CLASS_MAPS])
    deltas = clock.time(names[4], detector.pool, possible, outputs[BOX_MAPS])
    clock.time(names[5], detector.select, possible, scores, deltas)
    return len(regions)


def measure(bundle: Bundle, backend: BackendName, height: int, width: int, repeats: int) -> dict[str, Any]:
    """Measure medians in seconds, in turns after a warm-up."""
    settings = bundle.manifest.detection
    if not isinstance(settings, RegionDetection):
        raise SystemExit(f"{bundle.path} has no R-FCN head: give a bundle whose detection is of kind regions")
    runtime = open_backend(backend)
    model = fuse_propagate(bundle, height, width).model
    bare, whole = runtime.compile(up_to_convolutions(model)), runtime.compile(model)
    inputs, proposals = random_inputs(model), clustered(settings, height, width)
    detector = RegionDetector(settings, len(bundle.manifest.classes), height, width)

    def run(program: Program) -> Outputs:
        return cast("Outputs", program.run(inputs))

    clock = Clock()
    regions: dict[str, int] = {}
    for repeat in range(repeats + 3):
        if repeat == 3:  # everything is compiled and warm
            clock = Clock()
        clock.time("graph up to the convolutions", run, bare)
        outputs = clock.time("graph", run, whole)
        clock.time("as they come", detector.detect, outputs)
        regions["as they come"] = run_stages(clock, "as they come", settings, detector, run(whole), (height, width))
        trained = {**run(whole), **proposals}
        clock.time("clustered", detector.detect, trained)
        regions["clustered"] = run_stages(
            clock, "clustered", settings, detector, {**run(whole), **proposals}, (height, width)
        )
    medians = clock.medians()
    plain, graph = medians.pop("graph up to the convolutions"), medians.pop("graph")
    return {
        "backend": runtime.name,
        "precision": runtime.precision,
        "device": runtime.device,
        "graph_up_to_convolutions_s": plain,
        "graph_s": graph,
        "host": {kind: _host(kind, medians, plain, graph, regions[kind]) for kind in ("as they come", "clustered")},
    }


def _host(kind: str, medians: Mapping[str, float], plain: float, graph: float, regions: int) -> dict[str, Any]:
    host = medians[kind]
    # Runtimes that compute channels-last are faster if maps stay so, which must not count in favour of detection.
    arranging = max(graph - plain, 0.0)
    return {
        "regions": regions,
        "detect_s": host,
        "stages_s": {stage: medians[f"{kind}: {stage}"] for stage in STAGES},
        "share": (arranging + host) / (graph + host),
    }


def main() -> None:
    """Print the table or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of a bundle with an R-FCN head")
    parser.add_argument("--height", type=int, default=600, help="of the network's input, pixels (default: 600)")
    parser.add_argument("--width", type=int, default=1000, help="of the network's input, pixels (default: 1000)")
    parser.add_argument("--repeats", type=int, default=21, help="timed runs of each step (default: 21)")
    parser.add_argument("--backend", choices=get_args(BackendName), help="default: all that are installed, in turn")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()

    bundle = load_bundle(arguments.bundle)
    backends = cast("list[BackendName]", [arguments.backend] if arguments.backend else AVAILABLE)
    size = arguments.height, arguments.width
    figures = [measure(bundle, backend, *size, arguments.repeats) for backend in backends]
    conditions = {
        "bundle": bundle.name,
        "classes": len(bundle.manifest.classes),
        "height": arguments.height,
        "width": arguments.width,
        "batch": 1,
        "repeats": arguments.repeats,
        "machine": platform.processor() or platform.machine(),
    }
    if arguments.json:
        print(json.dumps({**conditions, "backends": figures}))
        return
    print(
        f"{bundle.name}, {conditions['classes']} classes, propagated frame of {size[1]}x{size[0]}, batch 1, "
        f"medians of {arguments.repeats} runs in turns"
    )
    for figure in figures:
        print(f"\n{figure['backend']} {figure['precision']} on {figure['device']}")
        plain, graph = figure["graph_up_to_convolutions_s"], figure["graph_s"]
        print(f"  {'networks, up to the convolutions':<36}{plain * 1e3:>9.2f} ms")
        print(f"  {'networks, with the maps arranged':<36}{graph * 1e3:>9.2f} ms")
        for kind, host in figure["host"].items():
            label = f"host, {kind} ({host['regions']} regions)"
            print(f"  {label:<36}{host['detect_s'] * 1e3:>9.2f} ms")
            for stage, seconds in host["stages_s"].items():
                print(f"    {stage:<34}{seconds * 1e3:>9.2f} ms")
            print(f"    {'share of detection in the frame':<34}{host['share'] * 100:>9.1f} %")


if __name__ == "__main__":
    main()
