"""A bundle compiled for a device, which runs the two steps of Algorithm 1: a key frame or a propagated frame."""

import copy
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np
import platformdirs
from numpy.typing import NDArray

from keywarp.engines.backends import ON_CPU, BackendName, Precision, open_backend
from keywarp.engines.backends.interface import DeviceTensor, Tensor
from keywarp.engines.bundle import Bundle
from keywarp.engines.cache import prune
from keywarp.engines.devices import Gpu
from keywarp.engines.errors import BackendError, BundleError, MotionError, TooManySizesError
from keywarp.engines.frames import Frame, FrameImages, Preparation, images_of
from keywarp.engines.fusion import CURRENT, FLOW, FRAME, KEY, FusedGraph, GraphStyle, fuse_all, fuse_frames, kept
from keywarp.engines.memory import release_unused_memory
from keywarp.engines.motion import (
    DIS,
    Area,
    ChainedTracker,
    CheckedFlow,
    CodecTracker,
    DirectTracker,
    FlowCheck,
    MotionName,
    MotionSource,
    MotionTracker,
    MotionVectors,
    OpticalFlow,
    stay_inside,
    to_cells,
)
from keywarp.engines.motion.network import NetworkFlow
from keywarp.engines.placement import Placement
from keywarp.engines.postprocessing import Postprocessor, open_postprocessor
from keywarp.engines.precisions import choose_precision
from keywarp.engines.preparation import input_size, place
from keywarp.engines.programs import PLACES, Compiled, Programs, compile_graphs
from keywarp.engines.reliability import rate
from keywarp.engines.result import FrameKind, FrameResult, Output

MAX_SIZES = 8  # input sizes that stay compiled
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class KeyState:
    """The state of a key frame for propagation: its features on the device, and what its motion is estimated from.

    The tracker follows the motion from frame to frame, so a state belongs to one stream, whose frames come in order.
    """

    placement: Placement  # where the frame lies in the networks' input
    features: dict[str, Tensor]  # maps and held tensors, by name; empty if features are copied
    small: Tensor | None  # the frame as the flow network's input, (1, h, w, 3); None if features are copied
    tracker: MotionTracker | None  # follows the motion; None if nothing or the propagate graph itself does
    check: FlowCheck | None  # checks the flow, or None if features are copied, or cells don't cover whole pixels
    copied: FrameResult | None = None  # the key frame's own result if features are copied, else None


class KeyPass:
    """The computing of a key frame's state in steps, with other frames in between.

    Attributes:
        steps: The number of steps.
        left: The number of steps that are left.
        seconds: The time that it took so far, as that of the whole device.
        failed: The error of a step, or None. No steps are left then.
    """

    def __init__(self, engine: "Engine", frame: Frame) -> None:
        """Begin.

        Args:
            engine: The engine that runs the networks.
            frame: See `Engine.key`. An array is copied, since it may be changed between steps.

        Raises:
            BackendError: See `Engine.key`.
            BundleError: See `Engine.key`.
        """
        self._engine = engine
        self._frame = frame.copy() if isinstance(frame, np.ndarray) else frame
        self._found: dict[str, Tensor] | KeyState = {}
        self.steps = self.left = engine.steps(frame)
        self.seconds = 0.0
        self.failed: Exception | None = None

    def step(self, lane: int | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        """Run the next step. An error is kept for `finish`.

        Args:
            lane: See `Engine.key`. Each step may run on another lane.
            clock: Returns seconds that the step's time is counted in, for a device whose lanes are in flight on it.
        """
        started = clock()
        try:
            assert not isinstance(self._found, KeyState)
            self._found = self._engine.step(self._frame, self.steps - self.left, self._found, lane)
        except Exception as error:  # noqa: BLE001 - it belongs to the frame that needs the state
            self.failed, self.left = error, 0
            return
        self.left -= 1
        self.seconds += (clock() - started) * self._engine.share(lane)

    def finish(self) -> KeyState:
        """Run the steps that are left, and return the state.

        Raises:
            BackendError: If the device failed, or the engine is closed.
            BundleError: If the graphs don't fit together, or their outputs don't fit the manifest.
        """
        while self.left:
            self.step()
        if self.failed:
            raise self.failed
        assert isinstance(self._found, KeyState)
        return self._found


class Engine:
    """Runs one bundle on one backend. It is thread-safe.

    Attributes:
        takes_vectors: Whether the motion source uses the motion vectors of the video's codec.
        lanes: The number of frames of different streams that run at the same time.
        in_flight: Whether these are in flight on the whole device, as on a GPU, not each on its share of it.
        slices: The greatest number of slices in which a key frame is computed if it overlaps with other frames.
        batch: The greatest number of propagated frames of different streams that are computed at once.
        frames: Keeps frames that a decoder leaves in the GPU's memory, or None if frames must be arrays.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: BackendName = "auto",
        precision: Precision = "auto",
        threads: int = 0,
        cache: Path | None = None,
        motion: MotionName | MotionSource | OpticalFlow | None = None,
        fallback: bool = False,
        gpu: Gpu | None = None,
        max_sizes: int = MAX_SIZES,
        sizes_in_use: float = 0.0,
        keep_features: bool = False,
        lanes: int = 1,
        slices: int = 1,
        batch: int = 1,
    ) -> None:
        """Open the backend. Graphs are compiled by `prepare`, or when the first frame of a size is processed.

        Args:
            bundle: The bundle to run.
            backend: See `open_backend`.
            precision: See `open_backend`; `auto` takes the bundle's int8 where that is known to be faster, see
                `keywarp.engines.precisions`.
            threads: See `open_backend`.
            cache: The folder for compiled graphs, or None for the user's cache folder (`KEYWARP_CACHE` overrides it).
            motion: The motion source, or None for the bundle's default. An optical flow of your own is used with a
                scale field of 1 (the paper's "shallow feature flow").
            fallback: See `open_backend`.
            gpu: See `open_backend`.
            max_sizes: The number of input sizes that stay compiled. Beyond it the least recently used one is freed.
            sizes_in_use: The seconds from the last frame of an input size in which it isn't freed. Frames of a further
                size are refused instead, which keeps those of others from waiting for compilation again and again.
            keep_features: Whether results carry the features that the head saw, which takes time.
            lanes: The number of frames of different streams that run at the same time. On a processor each gets its
                share of it, and graphs are compiled twice, for the whole of it and for a share. On a GPU they are in
                flight: each lane has buffers and a stream of its own, and all have the same weights.
            slices: The greatest number of slices in which the features of a key frame are computed, so that other
                frames can be processed in between, see `StreamSession`. Small networks have fewer, and a GPU has one.
            batch: The greatest number of propagated frames of different streams that a GPU computes at once, if it is
                busy anyway, see `Gatherer`. It takes more than two lanes. On a processor batches gain nothing, so that
                it has none.

        Raises:
            BackendError: If the backend can't be opened.
            MotionError: If the bundle lacks what the motion source needs, or optical flow can't move its features.
            ValueError: If there is no motion source of this name.
        """
        self.bundle = bundle
        source = motion or bundle.manifest.motion
        if isinstance(source, str):
            source = MotionSource.parse(source)
        self._source: MotionSource | OpticalFlow = source
        self._named = source if isinstance(source, MotionSource) else None
        if self._named:
            bundle.check_motion(self._named)
        self._cache = cache or default_cache()
        chosen, reason = choose_precision(bundle, precision, backend, gpu)
        self.backend = open_backend(backend, chosen, threads, self._cache, fallback, gpu)
        on_cpu = next((name for name in ON_CPU if name == self.backend.name), None)
        if fallback and on_cpu and backend not in ON_CPU:  # perhaps the CPU in place of a GPU
            why = self.backend.reason
            chosen, reason = choose_precision(bundle, "auto", on_cpu)
            if chosen == "int8" and self.backend.precision != chosen:
                self.backend = open_backend(on_cpu, chosen, threads, self._cache)
                self.backend.reason = why
        if reason:
            self.backend.reason += f"; {reason}"
            log.info("model %s in %s: %s", bundle.name, self.backend.precision, reason)
        self._graphs = bundle.in_precision(self.backend.precision)
        self.motion = source.name if not isinstance(source, MotionSource) else str(source)  # the source's name
        # The propagate graph takes a flow, unless it holds the flow network whose flow it uses.
        self._takes_flow = self._named is None or self._named.flow != "flow" or self._named.runs_alone
        self._takes_images = self._named is not None and (self._named.scale or not self._takes_flow)
        self._copies = self._named is not None and self._named.copies
        self.takes_vectors = self._named is not None and self._named.flow == "codec"
        self._keep_features = keep_features
        self._max_sizes = max_sizes
        self._sizes_in_use = sizes_in_use
        self._last_used: dict[tuple[int, int], float] = {}  # when each size was used last, in monotonic seconds
        self.frames = self.backend.frames
        self.lanes = lanes
        self.in_flight = self.backend.in_flight
        self.slices = slices if self.backend.name in ON_CPU else 1
        self.batch = batch if self.in_flight and lanes > PLACES and not self._copies else 1
        if self.batch < batch:
            log.info("model %s: propagated frames run one by one, since batches take a GPU and 3 lanes", bundle.name)
        stride, downscale = bundle.manifest.finest.stride, bundle.manifest.flow.downscale
        self._stride = stride
        self._checks = stride % downscale == 0  # otherwise no pixels of the small image belong to a cell
        if self._takes_flow and not self._copies and not self._checks:
            raise MotionError(
                f"{bundle.path}: the motion source {self.motion} uses images of 1/{downscale} the size, where cells "
                f"of {stride} pixels don't cover whole pixels: "
                + ("use the bundle's own flow network (motion `network`)" if bundle.manifest.has_flow_network else "")
                + ("" if bundle.manifest.has_flow_network else "give the bundle a `flow.downscale` that divides them")
            )
        self._pixels_per_cell = stride // downscale
        self._programs: OrderedDict[tuple[int, int], Future[Compiled]] = OrderedDict()
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
            TooManySizesError: If all sizes that may be compiled are in use.
        """
        self._compiled(input_size(height, width, self.bundle.manifest.image))

    def share(self, lane: int | None) -> float:
        """Return the share of the device that a lane is compiled for: all of it if lanes are in flight on it."""
        return 1.0 if lane is None or self.in_flight else 1 / self.lanes

    def mark_sizes_unused(self) -> None:
        """Let go of all input sizes so far, such as those of a warm-up: any may be freed for another."""
        with self._lock:
            self._last_used = dict.fromkeys(self._last_used, -math.inf)

    def key(self, frame: Frame, lane: int | None = None) -> tuple[FrameResult, KeyState]:
        """Run the feature network and the head on a key frame (Algorithm 1, lines 8-9).

        Args:
            frame: The frame, uint8 (H, W, 3), RGB, of any size, or one that `frames` keeps.
            lane: Which lane it runs on, from 0, or None for the whole device.

        Returns:
            The result, without the frame's position in its stream, and the state for `propagate`.

        Raises:
            BackendError: If the device failed, or the engine is closed.
            BundleError: If the graphs don't fit together, or their outputs don't fit the manifest.
        """
        started = time.perf_counter()
        placement = place(frame.shape[0], frame.shape[1], self.bundle.manifest.image)
        programs = self._compiled(placement.size).on(lane)
        images = self._images(frame, placement)
        inputs = {FRAME: images.input}
        with programs.lock:
            outputs = programs.run_key(inputs)
            result = self._key_result(programs, outputs, placement, frame, started)
        return result, self._state(programs, outputs, placement, images, result)

    def steps(self, frame: Frame) -> int:
        """Return the number of steps in which the state of a key frame can be computed without its result.

        Args:
            frame: See `key`.
        """
        placement = place(frame.shape[0], frame.shape[1], self.bundle.manifest.image)
        return self._compiled(placement.size).whole.steps

    def step(
        self, frame: Frame, number: int, tensors: Mapping[str, Tensor], lane: int | None
    ) -> dict[str, Tensor] | KeyState:
        """Run a step of computing a key frame's state. See `KeyPass`, which runs them in order.

        Args:
            frame: See `key`.
            number: The number of the step, from 0.
            tensors: What the steps before it gave.
            lane: See `key`.

        Returns:
            What later steps take, or the state, by the last step.

        Raises:
            BackendError: See `key`.
            BundleError: See `key`.
        """
        started = time.perf_counter()
        placement = place(frame.shape[0], frame.shape[1], self.bundle.manifest.image)
        programs = self._compiled(placement.size).on(lane)
        if number == 0:
            tensors = {FRAME: self._images(frame, placement).input}
        with programs.lock:
            outputs = programs.key[number].run(tensors)
            if number < programs.steps - 1:
                return outputs
            copied = not programs.propagate
            result = self._key_result(programs, outputs, placement, frame, started) if copied else None
        return self._state(programs, outputs, placement, self._images(frame, placement), result)

    def propagate(
        self,
        frame: Frame,
        key: KeyState,
        vectors: Sequence[MotionVectors | None] = (),
        lane: int | None = None,
    ) -> FrameResult:
        """Warp the key frame's features to this frame and run the head (Algorithm 1, lines 11-12).

        If features are copied nothing runs, because the same features give the same result.

        Args:
            frame: The frame, uint8 (H, W, 3), RGB, of the key frame's size. Frames of one key frame come in order.
            key: The state that `key` returned for the key frame.
            vectors: The codec's motion vectors, see `MotionTracker.advance`.
            lane: See `key`. It may be another one than the key frame's.

        Returns:
            The result, without the frame's position in its stream.

        Raises:
            BackendError: If the device failed, or the engine is closed.
            BundleError: If the graphs don't fit together, or their outputs don't fit the manifest.
            MotionError: If the motion source returned no valid flow.
        """
        started = time.perf_counter()
        if key.copied:  # copied deeply, so that changing one result changes no other
            self._check_open()
            output = copy.deepcopy(key.copied.output)
            result = _result(FrameKind.PROPAGATED, frame, output, time.perf_counter() - started, 0.0)
            return replace(result, motion=self.motion, features=key.copied.features)
        placement = key.placement
        programs = self._compiled(placement.size).on(lane)
        images = self._images(frame, placement)
        small = images.small
        assert key.small is not None
        inputs: dict[str, Tensor] = {**key.features}
        pair: dict[str, Tensor] = {}
        if programs.motion or self._takes_images:
            pair = {CURRENT: images.seen, KEY: key.small}
        checked: CheckedFlow | None = None
        if programs.motion:
            with programs.lock:
                inputs |= programs.motion.run(pair)  # the flow, and the scale fields if they are used
                flow = stay_inside(np.array(np.asarray(inputs[FLOW])[:, :, *placement.cells(self._stride)]))
        else:
            inputs |= pair
            if self._takes_flow:
                flow = self._flow(small, key, vectors)
        if self._takes_flow:
            checked = self._check(small, flow, key)
            flow = checked.flow
            inputs[FLOW] = placement.spread(flow, self._stride)
        with programs.lock, programs.run_propagate(inputs) as outputs:
            result = _postprocess(programs.postprocessor, outputs, placement, frame, FrameKind.PROPAGATED, started)
            features = self._kept_features(outputs, placement)
            if not self._takes_flow:
                flow = np.array(np.asarray(outputs[FLOW])[:, :, *placement.cells(self._stride)])
        if checked is None and key.check:
            checked = key.check.check(small, flow)
        aligned = placement.align(flow[0], self._stride)
        result = replace(result, motion=self._used(key.tracker), flow=aligned, features=features)
        if checked is None:
            return result
        cells = placement.align(checked.reliability, self._stride)
        output, reliability = rate(result.output, cells, result.height, result.width, self.bundle.manifest.background)
        return replace(result, output=output, reliability=reliability, reliability_map=cells)

    def close(self) -> None:
        """Free the compiled graphs, even if the engine is still referenced. Running frames finish; later ones fail."""
        with self._lock:
            self._closed = True
            self._programs.clear()
        release_unused_memory()

    def _key_result(
        self,
        programs: Programs,
        outputs: dict[str, Tensor],
        placement: Placement,
        frame: Frame,
        started: float,
    ) -> FrameResult:
        """Return the result of a key frame."""
        result = _postprocess(programs.postprocessor, outputs, placement, frame, FrameKind.KEY, started)
        return replace(result, features=self._kept_features(outputs, placement))

    def _state(
        self,
        programs: Programs,
        outputs: Mapping[str, Tensor],
        placement: Placement,
        images: FrameImages,
        result: FrameResult | None,
    ) -> KeyState:
        """Return the state of a key frame. The result may be left out unless features are copied."""
        if programs.propagate is None:
            assert result is not None
            return KeyState(placement, {}, None, None, None, replace(result, output=copy.deepcopy(result.output)))
        manifest = self.bundle.manifest
        names = [*(f.name for f in manifest.features), *(h.name for h in manifest.held)]
        moved = {name: outputs[name] for name in names}
        check = FlowCheck(images.small, self._pixels_per_cell) if self._checks else None
        tracker = self._open_tracker(programs, images.small, placement)
        return KeyState(placement, moved, images.seen, tracker, check)

    def _open_tracker(self, programs: Programs, small: NDArray[np.uint8], placement: Placement) -> MotionTracker | None:
        """Return the tracker of the motion since a key frame, or None if the propagate graph needs none."""
        source = self._source
        if not isinstance(source, MotionSource):
            return DirectTracker(source, small)
        if not self._takes_flow or source.flow == "none" or programs.motion:
            return None
        if source.flow == "codec":
            return CodecTracker(small, self._pixels_per_cell, self._area(placement))
        estimator: OpticalFlow = DIS.for_steps() if source.chained else DIS()
        if programs.flow:
            estimator = NetworkFlow(programs.flow, programs.lock, self._pixels_per_cell, placement, self._stride)
        return (ChainedTracker if source.chained else DirectTracker)(estimator, small)

    def _used(self, tracker: MotionTracker | None) -> str:
        """Return the name of the motion source that was really used for a frame."""
        if tracker is None or self._named is None:
            return self.motion
        used = MotionSource.parse(tracker.source)
        return str(replace(used, repaired=self._named.repaired, scale=self._named.scale))

    def _flow(
        self, small: NDArray[np.uint8], key: KeyState, vectors: Sequence[MotionVectors | None]
    ) -> NDArray[np.float32]:
        """Return the flow in cells, estimated on an image of the size that a flow network would see."""
        shape = (*small.shape[:2], 2)
        flow = np.zeros(shape, np.float32) if key.tracker is None else key.tracker.advance(small, vectors)
        if np.shape(flow) != shape or not np.isfinite(flow).all():
            raise MotionError(
                f"the motion source {self.motion} should give a finite flow of shape {shape}, not {np.shape(flow)}"
            )
        return stay_inside(to_cells(flow.astype(np.float32, copy=False), self._pixels_per_cell))

    def _check(self, small: NDArray[np.uint8], flow: NDArray[np.float32], key: KeyState) -> CheckedFlow:
        """Check a flow in cells, and repair it if the motion source says so."""
        assert key.check is not None
        if self._named is None or not self._named.repaired:
            return key.check.check(small, flow)
        if self._named.scale:  # it repaints what fails, and would repaint features of other places wrongly
            return key.check.stay(small, flow)
        return key.check.repair(small, flow)

    def _area(self, placement: Placement) -> Area | None:
        """Return where the picture lies in the small image, or None if it is the whole one."""
        if not placement.is_padded:
            return None
        factor = self.bundle.manifest.flow.downscale
        return Area(
            left=placement.left % self._stride / factor,
            top=placement.top % self._stride / factor,
            width=placement.columns / factor,
            height=placement.rows / factor,
        )

    def _images(self, frame: Frame, placement: Placement) -> FrameImages:
        """Return what networks and motion estimation see of a frame."""
        manifest = self.bundle.manifest
        return images_of(frame, Preparation(placement, manifest.image.pad, manifest.flow.downscale, self._stride))

    def _kept_features(
        self, outputs: Mapping[str, Tensor], placement: Placement
    ) -> tuple[NDArray[np.float32], ...] | None:
        """Return copies of the feature maps that the head saw, or None if results don't carry them."""
        if not self._keep_features:
            return None
        return tuple(
            np.array(np.asarray(outputs[kept(f.name)])[0][:, *placement.cells(f.stride)])
            for f in self.bundle.manifest.features
        )

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"the engine of model {self.bundle.name} is closed: open another one")

    def _compiled(self, size: tuple[int, int]) -> Compiled:
        """Return the programs for an input size. The first caller compiles, and the others wait for it."""
        with self._lock:
            self._check_open()
            future = self._programs.get(size)
            if mine := future is None:
                self._make_room()
                future = self._programs[size] = Future()
            self._programs.move_to_end(size)
            self._last_used[size] = time.monotonic()
        if mine:
            try:
                future.set_result(self._compile(*size))
                prune(self._cache)
            except BaseException as error:  # noqa: BLE001 - other threads wait for this future
                with self._lock:
                    if self._programs.get(size) is future:  # so that the next frame tries again
                        del self._programs[size]
                future.set_exception(error)
        return future.result()

    def _make_room(self) -> None:
        """Free the size that wasn't used for longest, if there is no room for another."""
        while len(self._programs) >= self._max_sizes:
            oldest = next(iter(self._programs))
            if time.monotonic() - self._last_used[oldest] < self._sizes_in_use:
                sizes = ", ".join(f"{width}x{height}" for height, width in self._programs)
                raise TooManySizesError(
                    f"model {self.bundle.name} is compiled for at most {self._max_sizes} input sizes at a time, all in "
                    f"use: {sizes}"
                )
            del self._programs[oldest], self._last_used[oldest]

    def _compile(self, height: int, width: int) -> Compiled:
        if self.takes_vectors or (self._named is not None and self._named.repaired):
            from keywarp.engines.motion import loops  # imports numba, if that is installed

            loops.warm_up()
        style = replace(self.backend.style, keep_features=self._keep_features)
        graphs = fuse_all(self._graphs, height, width, self._named, style)

        def postprocessor() -> Postprocessor:
            return open_postprocessor(self.bundle.manifest, height, width, style)

        return compile_graphs(
            self.backend, graphs, postprocessor, self.lanes, self.slices, self._batches(height, width, style)
        )

    def _batches(self, height: int, width: int, style: GraphStyle) -> dict[int, FusedGraph]:
        """Return the graphs for batches of growing size, none if the flow network is made for one frame."""
        sizes = sorted({self.batch, *(2**power for power in range(1, self.batch.bit_length()))} - {1})
        try:
            return {frames: fuse_frames(self._graphs, height, width, self._named, style, frames) for frames in sizes}
        except BundleError as error:
            log.warning("model %s: propagated frames run one by one: %s", self.bundle.name, error)
            return {}


def _postprocess(
    postprocessor: Postprocessor,
    outputs: Mapping[str, Tensor],
    placement: Placement,
    frame: Frame,
    kind: FrameKind,
    started: float,
) -> FrameResult:
    """Turn a program's outputs into a result. Call it before the program runs again, which overwrites its outputs."""
    inferred = time.perf_counter()
    host = {name: value for name, value in outputs.items() if not isinstance(value, DeviceTensor)}
    output = postprocessor.run(host, placement, *frame.shape[:2])
    return _result(kind, frame, output, inferred - started, time.perf_counter() - inferred)


def _result(kind: FrameKind, frame: Frame, output: Output, inference: float, postprocess: float) -> FrameResult:
    """Return a result without the frame's position in its stream."""
    height, width = frame.shape[:2]
    return FrameResult(0, kind, 0, height, width, output, inference, postprocess)


def default_cache() -> Path:
    """Return the user's folder for compiled graphs, which the environment variable `KEYWARP_CACHE` overrides."""
    return Path(os.environ.get("KEYWARP_CACHE") or platformdirs.user_cache_path("keywarp")) / "engines"
