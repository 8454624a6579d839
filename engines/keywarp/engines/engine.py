"""A bundle compiled for a device, which runs the two steps of Algorithm 1: a key frame or a propagated frame."""

import copy
import os
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
import platformdirs
from numpy.typing import NDArray

from keywarp.engines.backends import BackendName, Precision, Program, open_backend
from keywarp.engines.backends.interface import DeviceTensor, Tensor
from keywarp.engines.bundle import Bundle
from keywarp.engines.devices import Gpu
from keywarp.engines.errors import BackendError, MotionError
from keywarp.engines.fusion import FLOW, FRAME, KEY_SMALL, Motion, fuse_all
from keywarp.engines.memory import release_unused_memory
from keywarp.engines.motion import MotionName, OpticalFlow, open_motion, to_cells
from keywarp.engines.postprocessing import Postprocessor, open_postprocessor
from keywarp.engines.preparation import input_size, resize
from keywarp.engines.result import FrameKind, FrameResult, Output

MAX_SIZES = 8  # input sizes that stay compiled


@dataclass(frozen=True, slots=True, eq=False)
class KeyState:
    """The state of a key frame for propagation: its features on the device, and the input of the motion source."""

    size: tuple[int, int]  # (height, width) of the networks' input, pixels
    features: dict[str, Tensor]  # by name; empty if features are copied
    small: Tensor | None  # the frame as the motion source's input; None if features are copied
    output: Output  # the key frame's result


@dataclass(frozen=True, slots=True)
class _Programs:
    key: Program
    propagate: Program | None  # None if features are copied
    postprocessor: Postprocessor
    lock: Lock  # held while a program runs, since only one run is allowed at a time


class Engine:
    """Runs one bundle on one backend. It is thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        backend: BackendName = "auto",
        precision: Precision = "auto",
        threads: int = 0,
        cache: Path | None = None,
        motion: MotionName | OpticalFlow = "network",
        fallback: bool = False,
        gpu: Gpu | None = None,
        max_sizes: int = MAX_SIZES,
    ) -> None:
        """Open the backend. Graphs are compiled by `prepare`, or when the first frame of a size is processed.

        Args:
            bundle: The bundle to run.
            backend: See `open_backend`.
            precision: See `open_backend`.
            threads: See `open_backend`.
            cache: The folder for compiled graphs, or None for the user's cache folder (`KEYWARP_CACHE` overrides it).
            motion: The motion source. `network` is the bundle's flow network and `none` copies the features. Any other
                is optical flow with a scale field of 1 (the paper's "shallow feature flow").
            fallback: See `open_backend`.
            gpu: See `open_backend`.
            max_sizes: The number of input sizes that stay compiled. Beyond it the least recently used one is freed.

        Raises:
            BackendError: If the backend can't be opened.
            MotionError: If optical flow can't move the bundle's features.
            ValueError: If there is no motion source of this name.
        """
        self.bundle = bundle
        self.backend = open_backend(backend, precision, threads, cache or default_cache(), fallback, gpu)
        source = open_motion(motion) if isinstance(motion, str) else motion
        self._optical_flow = None if isinstance(source, str) else source
        self.motion = source if isinstance(source, str) else source.name  # the motion source's name
        self._copies = source == "none"
        self._max_sizes = max_sizes
        stride, downscale = bundle.manifest.finest.stride, bundle.manifest.flow.downscale
        if self._optical_flow and stride % downscale:
            raise MotionError(
                f"{bundle.path}: the motion source {self.motion} uses images of 1/{downscale} the size, where cells "
                f"of {stride} pixels don't cover whole pixels: use the bundle's own flow network (motion `network`)"
            )
        self._programs: OrderedDict[tuple[int, int], Future[_Programs]] = OrderedDict()
        self._lock = Lock()
        self._closed = False

    def prepare(self, height: int, width: int) -> None:
        """Compile for frames of a size, which takes seconds the first time and no time afterwards.

        Args:
            height: The frames' height in pixels.
            width: The frames' width in pixels.

        Raises:
            BackendError: If the runtime refuses the graphs, or the engine is closed.
            BundleError: If the graphs don't fit together.
        """
        self._compiled(input_size(height, width, self.bundle.manifest.image))

    def key(self, frame: NDArray[np.uint8]) -> tuple[FrameResult, KeyState]:
        """Run the feature network and the head on a key frame (Algorithm 1, lines 8-9).

        Args:
            frame: The frame, uint8 (H, W, 3), RGB, of any size.

        Returns:
            The result, without the frame's position in its stream, and the state for `propagate`.

        Raises:
            BackendError: If the device failed, or the engine is closed.
            BundleError: If the graphs don't fit together, or their outputs don't fit the manifest.
        """
        started = time.perf_counter()
        size = input_size(frame.shape[0], frame.shape[1], self.bundle.manifest.image)
        programs = self._compiled(size)
        image = resize(frame, *size)
        with programs.lock:
            outputs = programs.key.run({FRAME: image[np.newaxis]})
            result = _postprocess(programs.postprocessor, outputs, frame, FrameKind.KEY, started)
        if self._copies:
            return result, KeyState(size, {}, None, copy.deepcopy(result.output))
        features = {f.name: outputs[f.name] for f in self.bundle.manifest.features}
        small = self._downscale(image) if self._optical_flow else outputs[KEY_SMALL]
        return result, KeyState(size, features, small, result.output)

    def propagate(self, frame: NDArray[np.uint8], key: KeyState) -> FrameResult:
        """Warp the key frame's features to this frame and run the head (Algorithm 1, lines 11-12).

        If features are copied nothing runs, because the same features give the same result.

        Args:
            frame: The frame, uint8 (H, W, 3), RGB, of the key frame's size.
            key: The state that `key` returned for the key frame.

        Returns:
            The result, without the frame's position in its stream.

        Raises:
            BackendError: If the device failed, or the engine is closed.
            BundleError: If the graphs don't fit together, or their outputs don't fit the manifest.
            MotionError: If the motion source returned no valid flow.
        """
        started = time.perf_counter()
        if key.small is None:  # copied deeply, so that changing one result changes no other
            output = copy.deepcopy(key.output)
            return _result(FrameKind.PROPAGATED, frame, output, time.perf_counter() - started, 0.0)
        programs = self._compiled(key.size)
        assert programs.propagate is not None
        image = resize(frame, *key.size)
        inputs: dict[str, Tensor] = {**key.features}
        if isinstance(key.small, DeviceTensor):
            inputs |= {FRAME: image[np.newaxis], KEY_SMALL: key.small}
        else:
            inputs[FLOW] = self._flow(image, key.small)
        with programs.lock:
            outputs = programs.propagate.run(inputs)
            return _postprocess(programs.postprocessor, outputs, frame, FrameKind.PROPAGATED, started)

    def close(self) -> None:
        """Free the compiled graphs, even if the engine is still referenced. Running frames finish; later ones fail."""
        with self._lock:
            self._closed = True
            self._programs.clear()
        release_unused_memory()

    def _flow(self, image: NDArray[np.uint8], key_small: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the optical flow in cells, estimated on images of the size that a flow network would see."""
        assert self._optical_flow is not None
        flow = self._optical_flow.estimate(self._downscale(image), key_small)
        shape = (*key_small.shape[:2], 2)
        if np.shape(flow) != shape or not np.isfinite(flow).all():
            raise MotionError(
                f"the motion source {self.motion} should give a finite flow of shape {shape}, not {np.shape(flow)}"
            )
        manifest = self.bundle.manifest
        return to_cells(flow.astype(np.float32, copy=False), manifest.finest.stride // manifest.flow.downscale)

    def _downscale(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image averaged over blocks of `downscale` pixels; blocks at the border may be smaller."""
        factor = self.bundle.manifest.flow.downscale
        height, width = image.shape[:2]
        padded = cv2.copyMakeBorder(image, 0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
        size = (padded.shape[1] // factor, padded.shape[0] // factor)
        return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def _compiled(self, size: tuple[int, int]) -> _Programs:
        """Return the programs for an input size. The first caller compiles, and the others wait for it."""
        with self._lock:
            if self._closed:
                raise BackendError(f"the engine of model {self.bundle.name} is closed: open another one")
            future = self._programs.get(size)
            if mine := future is None:
                future = self._programs[size] = Future()
                while len(self._programs) > self._max_sizes:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(size)
        if mine:
            try:
                future.set_result(self._compile(*size))
            except BaseException as error:  # noqa: BLE001 - other threads wait for this future
                with self._lock:
                    if self._programs.get(size) is future:  # so that the next frame tries again
                        del self._programs[size]
                future.set_exception(error)
        return future.result()

    def _compile(self, height: int, width: int) -> _Programs:
        motion: Motion = "flow" if self._optical_flow else "none" if self._copies else "network"
        graphs = fuse_all(self.bundle, height, width, motion)
        programs = {name: self.backend.compile(graph.model, graph.resident) for name, graph in graphs.items()}
        return _Programs(
            key=programs["key"],
            propagate=programs.get("propagate"),
            postprocessor=open_postprocessor(self.bundle.manifest, height, width),
            lock=Lock(),
        )


def _postprocess(
    postprocessor: Postprocessor, outputs: dict[str, Tensor], frame: NDArray[np.uint8], kind: FrameKind, started: float
) -> FrameResult:
    """Turn a program's outputs into a result. Call it before the program runs again, which overwrites its outputs."""
    inferred = time.perf_counter()
    host = {name: value for name, value in outputs.items() if not isinstance(value, DeviceTensor)}
    output = postprocessor.run(host, *frame.shape[:2])
    return _result(kind, frame, output, inferred - started, time.perf_counter() - inferred)


def _result(
    kind: FrameKind, frame: NDArray[np.uint8], output: Output, inference: float, postprocess: float
) -> FrameResult:
    """Return a result without the frame's position in its stream."""
    height, width = frame.shape[:2]
    return FrameResult(0, kind, 0, height, width, output, inference, postprocess)


def default_cache() -> Path:
    """Return the user's folder for compiled graphs, which the environment variable `KEYWARP_CACHE` overrides."""
    return Path(os.environ.get("KEYWARP_CACHE") or platformdirs.user_cache_path("keywarp")) / "engines"
