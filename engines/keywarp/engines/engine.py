"""A bundle compiled for a device: the two things that Algorithm 1 does with a frame."""

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
from keywarp.engines.memory import give_back
from keywarp.engines.motion import MotionName, OpticalFlow, open_motion, to_cells
from keywarp.engines.preparation import input_size, resize
from keywarp.engines.reading import Reader, open_reader
from keywarp.engines.result import FrameKind, FrameResult, Output

MAX_SIZES = 8  # input sizes that stay compiled at once; the least recently used goes first


@dataclass(frozen=True, slots=True, eq=False)
class KeyState:
    """What a key frame leaves behind: its features on the device, and what its motion is told from."""

    size: tuple[int, int]  # (height, width) of the network's input
    features: dict[str, Tensor]  # empty where the result is copied
    small: Tensor | None  # the frame as the motion source sees it; None where the result is copied
    output: Output  # the key frame's result


@dataclass(frozen=True, slots=True)
class _Programs:
    key: Program
    propagate: Program | None  # None: features are copied
    reader: Reader
    lock: Lock  # a program runs once at a time


class Engine:
    """Runs one bundle on one backend. Thread-safe."""

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
    ) -> None:
        """Open the backend; graphs are compiled by `prepare`, or when the first frame of a size comes.

        Args:
            bundle: The bundle.
            backend: See `open_backend`.
            precision: See `open_backend`.
            threads: See `open_backend`.
            cache: Folder for compiled graphs; None: the user's cache folder (`KEYWARP_CACHE` overrides it).
            motion: Where the flow comes from: `network` is the bundle's flow network; `none` copies the features; the
                others are optical flow, with a scale field of 1 (the paper's "shallow feature flow").
            fallback: See `open_backend`.
            gpu: See `open_backend`.

        Raises:
            BackendError: The backend isn't there.
            MotionError: The bundle's features can't be moved by optical flow.
            ValueError: There is no motion source of this name.
        """
        self.bundle = bundle
        self.backend = open_backend(backend, precision, threads, cache or default_cache(), fallback, gpu)
        source = open_motion(motion) if isinstance(motion, str) else motion
        self._optical_flow = None if isinstance(source, str) else source
        self.motion = source if isinstance(source, str) else source.name  # where the flow comes from
        self._copies = source == "none"
        stride, downscale = bundle.manifest.finest.stride, bundle.manifest.flow.downscale
        if self._optical_flow and stride % downscale:
            raise MotionError(
                f"{bundle.path}: {self.motion} works on images of 1/{downscale} the size, where cells of {stride} "
                "pixels are no whole number of pixels: only the bundle's own flow network can move its features"
            )
        self._programs: OrderedDict[tuple[int, int], Future[_Programs]] = OrderedDict()
        self._lock = Lock()
        self._closed = False

    def prepare(self, height: int, width: int) -> None:
        """Compile for frames of this size: seconds the first time, nothing after.

        Args:
            height: Of the frame, pixels.
            width: Of the frame, pixels.

        Raises:
            BackendError: The runtime refuses the graphs, or the engine is closed.
            BundleError: The graphs don't fit together.
        """
        self._compiled(input_size(height, width, self.bundle.manifest.image))

    def key(self, frame: NDArray[np.uint8]) -> tuple[FrameResult, KeyState]:
        """Run the feature network and the head (Algorithm 1, lines 8-9).

        The result says nothing of the frame's place in its stream, which `StreamSession` fills in.

        Args:
            frame: uint8 (H, W, 3), RGB, of any size.

        Raises:
            BackendError: The device failed.
            BundleError: The graphs don't fit together, or their outputs aren't what the manifest says.
        """
        started = time.perf_counter()
        size = input_size(frame.shape[0], frame.shape[1], self.bundle.manifest.image)
        programs = self._compiled(size)
        image = resize(frame, *size)
        with programs.lock:
            outputs = programs.key.run({FRAME: image[np.newaxis]})
            result = _read(programs.reader, outputs, frame, FrameKind.KEY, started)
        if self._copies:
            return result, KeyState(size, {}, None, copy.deepcopy(result.output))
        features = {f.name: outputs[f.name] for f in self.bundle.manifest.features}
        small = self._downscale(image) if self._optical_flow else outputs[KEY_SMALL]
        return result, KeyState(size, features, small, result.output)

    def propagate(self, frame: NDArray[np.uint8], key: KeyState) -> FrameResult:
        """Warp the key frame's features to this frame and run the head (Algorithm 1, lines 11-12).

        Where features are copied nothing runs, because the same features have the same result. The result says nothing
        of the frame's place in its stream, which `StreamSession` fills in.

        Args:
            frame: uint8 (H, W, 3), RGB, of the key frame's size.
            key: What `key` returned for the key frame.

        Raises:
            BackendError: The device failed.
            BundleError: The graphs don't fit together, or their outputs aren't what the manifest says.
            MotionError: The motion source gave no flow.
        """
        started = time.perf_counter()
        if key.small is None:  # a copy: results are their frames' own
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
            return _read(programs.reader, outputs, frame, FrameKind.PROPAGATED, started)

    def close(self) -> None:
        """Free what is compiled, whoever still holds the engine. What runs ends well; frames that come later fail."""
        with self._lock:
            self._closed = True
            self._programs.clear()
        give_back()

    def _flow(self, image: NDArray[np.uint8], key_small: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Optical flow between images of the size that a flow network would see, in cells."""
        assert self._optical_flow is not None
        flow = self._optical_flow.estimate(self._downscale(image), key_small)
        shape = (*key_small.shape[:2], 2)
        if np.shape(flow) != shape or not np.isfinite(flow).all():
            raise MotionError(f"{self.motion} should give a finite flow of shape {shape}, it gave {np.shape(flow)}")
        manifest = self.bundle.manifest
        return to_cells(flow.astype(np.float32, copy=False), manifest.finest.stride // manifest.flow.downscale)

    def _downscale(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image averaged over `downscale` pixels; what sticks out at the end is averaged alone."""
        factor = self.bundle.manifest.flow.downscale
        height, width = image.shape[:2]
        padded = cv2.copyMakeBorder(image, 0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
        size = (padded.shape[1] // factor, padded.shape[0] // factor)
        return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def _compiled(self, size: tuple[int, int]) -> _Programs:
        """The programs for an input size; the first to ask compiles, others who ask meanwhile wait for it."""
        with self._lock:
            if self._closed:
                raise BackendError(f"the engine of model {self.bundle.name} is closed")
            future = self._programs.get(size)
            if mine := future is None:
                future = self._programs[size] = Future()
                while len(self._programs) > MAX_SIZES:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(size)
        if mine:
            try:
                future.set_result(self._compile(*size))
            except BaseException as error:  # noqa: BLE001 - others wait for this future
                with self._lock:
                    if self._programs.get(size) is future:  # the next frame tries again
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
            reader=open_reader(self.bundle.manifest, height, width),
            lock=Lock(),
        )


def _read(
    reader: Reader, outputs: dict[str, Tensor], frame: NDArray[np.uint8], kind: FrameKind, started: float
) -> FrameResult:
    """Read the result; to be called before the program runs again, since its outputs are its own."""
    inferred = time.perf_counter()
    host = {name: value for name, value in outputs.items() if not isinstance(value, DeviceTensor)}
    output = reader.read(host, *frame.shape[:2])
    return _result(kind, frame, output, inferred - started, time.perf_counter() - inferred)


def _result(
    kind: FrameKind, frame: NDArray[np.uint8], output: Output, inference: float, postprocess: float
) -> FrameResult:
    """Return a result without the frame's place in its stream."""
    height, width = frame.shape[:2]
    return FrameResult(0, kind, 0, height, width, output, inference, postprocess)


def default_cache() -> Path:
    """The user's folder for compiled graphs; the environment's `KEYWARP_CACHE` overrides where."""
    return Path(os.environ.get("KEYWARP_CACHE") or platformdirs.user_cache_path("keywarp")) / "engines"
