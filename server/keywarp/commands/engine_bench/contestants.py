"""What takes turns: the whole network on every frame, Keywarp, and its parts.

Each contestant's time is from the decoded frame in memory to the networks' outputs. Keywarp's also includes what
follows on the host, such as the selection of boxes.
"""

import time
from importlib.util import find_spec

import numpy as np
import onnx

from keywarp.commands.engine_bench.footage import Frame, Window
from keywarp.commands.engine_bench.networks import Candidate
from keywarp.commands.engine_bench.operations import part_shapes
from keywarp.commands.engine_bench.turns import Contestant, Times, Turn, open_runtime, timed_frames
from keywarp.engines import Bundle, Engine, FixedInterval, Precision, StreamSession
from keywarp.engines.backends import BackendName, Program
from keywarp.engines.fusion import FRAME, fuse_key
from keywarp.engines.manifest import ImagePreparation
from keywarp.engines.parity import fix_shapes
from keywarp.engines.placement import Placement
from keywarp.engines.preparation import input_size, place, resize

PYTORCH, PARTS = "pytorch", "parts"


def per_frame(bundle: Bundle, backend: BackendName, precision: Precision, threads: int) -> Contestant:
    """Return the whole network on every frame, as one graph from a frame's bytes to the results before the host's part.

    Args:
        bundle: The bundle.
        backend: The runtime.
        precision: The precision.
        threads: See `open_backend`.
    """

    def start() -> Turn:
        runtime = open_runtime(backend, precision, threads)
        programs: dict[tuple[int, int], Program] = {}

        def run(frame: Frame) -> None:
            placement = place(frame.shape[0], frame.shape[1], bundle.manifest.image)
            if placement.size not in programs:
                programs[placement.size] = runtime.compile(
                    whole_network(bundle.in_precision(precision), *placement.size)
                )
            programs[placement.size].run({FRAME: _fitted(frame, placement, bundle.manifest.image)})

        return timed_frames(run, 1)

    return Contestant(f"{backend} {precision}", backend, start)


def pytorch(bundle: Bundle, threads: int) -> Contestant:
    """Return the whole network on every frame in PyTorch, operator by operator.

    Args:
        bundle: The bundle.
        threads: The number of threads, or 0 to let PyTorch choose.
    """

    def start() -> Turn:
        from keywarp.commands.engine_bench.eager import EagerNetwork

        return timed_frames(EagerNetwork(bundle, threads).run, 1)

    return Contestant("pytorch fp32", PYTORCH, start)


def has_pytorch() -> bool:
    """Return whether PyTorch is installed."""
    return find_spec("torch") is not None


def keywarp(candidate: Candidate, backend: BackendName, precision: Precision, threads: int) -> Contestant:
    """Return Keywarp: a stream of windows, each with a key frame and frames that are propagated from it.

    Args:
        candidate: The bundle and its motion source.
        backend: The runtime.
        precision: The precision.
        threads: See `open_backend`.
    """

    def start() -> Turn:
        engine = Engine(candidate.bundle, backend, precision, threads, motion=candidate.motion)

        def turn(window: Window) -> Times:
            session = StreamSession(engine, FixedInterval(len(window)))
            seconds: list[float] = []
            host: list[float] = []
            began = time.perf_counter()
            for frame in window:
                started = time.perf_counter()
                result = session.process(frame.image, vectors=[frame.vectors])
                seconds.append(time.perf_counter() - started)
                host.append(result.postprocess)
            whole = (time.perf_counter() - began) / len(window)
            session.close()
            return {"key": seconds[:1], "propagated": seconds[1:], "window": [whole], "host": host}

        return turn

    return Contestant(f"{candidate.label} {precision}", candidate.label, start)


def part(
    bundle: Bundle,
    name: str,
    label: str,
    backend: BackendName,
    precision: Precision,
    threads: int,
    size: tuple[int, int],
) -> Contestant:
    """Return one of a bundle's graphs by itself, with inputs of ones.

    Args:
        bundle: The bundle.
        name: `features`, `flow`, `warp` or `head`.
        label: What to call it.
        backend: The runtime.
        precision: The precision.
        threads: See `open_backend`.
        size: The frames' height and width in pixels.
    """

    def start() -> Turn:
        shapes = part_shapes(bundle, name, *input_size(*size, bundle.manifest.image))
        model = fix_shapes(bundle.in_precision(precision).graph(f"{name}.onnx"), shapes)
        program = open_runtime(backend, precision, threads).compile(model)
        inputs = {tensor: np.ones(shape, np.float32) for tensor, shape in shapes.items()}
        return timed_frames(lambda _: program.run(inputs), 1 if name == "features" else 3)

    return Contestant(f"{label} alone, {precision}", PARTS, start)


def whole_network(bundle: Bundle, height: int, width: int) -> onnx.ModelProto:
    """Return the graph of a key frame without what only propagation needs.

    Args:
        bundle: The bundle.
        height: The height of the networks' input in pixels.
        width: Its width.
    """
    fused = fuse_key(bundle, height, width)
    wanted = [output.name for output in fused.model.graph.output if output.name not in fused.resident]
    return onnx.utils.Extractor(fused.model).extract_model([FRAME], wanted)


def _fitted(frame: Frame, placement: Placement, image: ImagePreparation) -> Frame:
    return placement.pad(resize(frame, placement.rows, placement.columns), image.pad)[np.newaxis]
