"""What frames cost on this machine: measured with one cut, predicted for the others."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from keywarp.engines import Backend, Bundle, Engine
from keywarp.engines.backends.interface import Tensor
from keywarp.engines.manifest import map_names
from keywarp.engines.parity import fix_shapes
from keywarp.engines.preparation import input_size
from keywarp.importing.candidates import Candidate
from keywarp.saving import FrameCosts

KEYS = 5  # key frames that are timed, at most
SECONDS = 4.0  # after which no further key frame is timed

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class MeasuredCosts:
    """The costs of frames with one cut on this machine, in seconds."""

    cut: Candidate
    frames: FrameCosts  # from the decoded frame to the result; a propagated one with its motion
    runtime: str  # what ran the graphs

    def predict(self, other: Candidate) -> FrameCosts:
        """Return the costs with another cut, from the differences in the head's operations and the maps' bytes."""
        work = self.frames.key / max(self.cut.operations, 1) * (other.head_operations - self.cut.head_operations)
        frames = self.frames
        warp, head = frames.warp / max(self.cut.bytes, 1) * other.bytes, max(frames.head + work, 0.0)
        return FrameCosts(frames.key, frames.motion + warp + head, head, warp)


def measure_costs(bundle: Bundle, cut: Candidate, frames: Sequence[Frame]) -> MeasuredCosts:
    """Time frames with a bundle's default motion source on this machine's default runtime.

    The fastest of a few frames of each kind counts, since other programs on the machine disturb it least.

    Args:
        bundle: The bundle.
        cut: The cut that it was made with.
        frames: Two or more consecutive frames. The first one becomes the key frame.

    Raises:
        keywarp.engines.EngineError: If the bundle can't be run.
    """
    with TemporaryDirectory(prefix="keywarp-import-") as cache:
        engine = Engine(bundle, cache=Path(cache))
        try:
            engine.prepare(*frames[0].shape[:2])
            keys: list[float] = []
            moved: list[float] = []
            started = time.perf_counter()
            while len(keys) <= KEYS and (len(keys) < 2 or time.perf_counter() - started < SECONDS):
                with _timed(keys):
                    _, state = engine.key(frames[0])
                for frame in frames[1:]:
                    with _timed(moved):
                        engine.propagate(frame, state)
            backend = engine.backend
            head = warp = 0.0
            if state.features:  # otherwise the key frame's result is repeated
                head = _time_head(bundle, backend, *frames[0].shape[:2])
                warp = _time_warp(bundle, backend, *frames[0].shape[:2])
        finally:
            engine.close()
    del keys[0], moved[: len(frames) - 1]  # which warm up
    costs = FrameCosts(min(keys), min(moved), head, warp)
    return MeasuredCosts(cut, costs, f"{backend.name} in {backend.precision} on {backend.device}")


def _time_head(bundle: Bundle, backend: Backend, height: int, width: int) -> float:
    """Return the seconds that the head takes for frames of a size in pixels."""
    manifest = bundle.manifest
    shapes = {f.name: _shape(bundle, height, width, f.channels, f.stride) for f in manifest.features}
    shapes |= {held.name: tuple(held.shape) for held in manifest.held}
    inputs = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return _time(backend, fix_shapes(bundle.graph("head.onnx"), shapes), inputs)


def _time_warp(bundle: Bundle, backend: Backend, height: int, width: int) -> float:
    """Return the seconds that moving the maps takes for frames of a size in pixels."""
    manifest = bundle.manifest
    shapes = {"flow": _shape(bundle, height, width, 2, manifest.finest.stride)}
    for prefix in ("features", "scale"):
        names = map_names(prefix, len(manifest.features))
        shapes |= {
            name: _shape(bundle, height, width, f.channels, f.stride)
            for name, f in zip(names, manifest.features, strict=True)
        }
    inputs = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return _time(backend, fix_shapes(bundle.graph("warp.onnx"), shapes), inputs)


def _shape(bundle: Bundle, height: int, width: int, channels: int, stride: int) -> tuple[int, ...]:
    """Return the shape of a map for frames of a size in pixels."""
    rows, columns = input_size(height, width, bundle.manifest.image)
    return 1, channels, -(-rows // stride), -(-columns // stride)


def _time(backend: Backend, model: onnx.ModelProto, inputs: Mapping[str, Tensor]) -> float:
    """Return the seconds that a graph takes."""
    program = backend.compile(model)
    times: list[float] = []
    for _ in range(KEYS):
        with _timed(times):
            program.run(inputs)
    return min(times)


@contextmanager
def _timed(times: list[float]) -> Iterator[None]:
    """Append the seconds that the block takes."""
    started = time.perf_counter()
    yield
    times.append(time.perf_counter() - started)
