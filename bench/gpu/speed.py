"""Frames a second of the paper's networks: key frames, propagated ones, and streams beside every frame alone."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.gpu.case import Case, FailedError, SkippedError
from bench.gpu.frames import moving_frames
from bench.gpu.graphs import DRY_SIZE, PAPER_SIZE, open_paper
from keywarp.engines import (
    FRAMES_IN_FLIGHT,
    BackendError,
    Engine,
    Executor,
    FixedInterval,
    FrameResult,
    Precision,
    StreamSession,
    choose_backend,
)

if TYPE_CHECKING:
    from concurrent.futures import Future

INTERVAL: Final = 10
STREAMS: Final = (1, 8)
IN_FLIGHT: Final = 2  # frames of a stream
SECONDS: Final = 2.0  # of each measurement
WARM_UP: Final = 5  # frames


def run(case: Case, features: str, flow: str) -> None:
    """Measure one pair of networks.

    Raises:
        FailedError: If results aren't finite.
        SkippedError: If no backend runs on the card.
    """
    case.load_cuda()
    gpu = None if case.dry else case.gpu
    choice = choose_backend("auto", [] if gpu is None else [gpu])
    if choice.gpu is None and not case.dry:
        raise SkippedError(f"no backend runs on this card: {choice.reason}")
    bundle = open_paper(case, features, flow)
    started = time.perf_counter()
    try:
        name: Any = "onnxruntime" if case.dry else choice.backend
        precision: Precision = "fp32" if case.dry else "auto"
        lanes = 2 if gpu is None else FRAMES_IN_FLIGHT
        engine = Engine(bundle, name, precision, gpu=gpu, cache=case.folder / "plans", lanes=lanes)
    except BackendError as error:
        raise SkippedError(str(error)) from error
    height, width = DRY_SIZE if case.dry else PAPER_SIZE
    frames = moving_frames(2 * INTERVAL, height, width)
    engine.prepare(height, width)
    case.record(
        backend=engine.backend.name,
        device=engine.backend.device,
        precision=engine.backend.precision,
        size=f"{height}x{width}",
        prepare_seconds=time.perf_counter() - started,
    )
    seconds = 0.05 if case.dry else SECONDS
    result, state = engine.key(frames[0])
    if not np.isfinite(result.detections.confidence).all():
        raise FailedError("the confidence of objects isn't finite")
    case.record(objects=len(result.detections.confidence))
    case.record(key=_latency(seconds, lambda frame: engine.key(frame)[0], frames))
    case.record(propagated=_latency(seconds, lambda frame: engine.propagate(frame, state), frames))
    for count in STREAMS:
        fps = {
            "keywarp": _stream_fps(engine, frames, count, INTERVAL, seconds),
            "serial": _stream_fps(engine, frames, count, INTERVAL, seconds, serial=True),
            "per_frame": _stream_fps(engine, frames, count, 1, seconds),
        }
        case.record(**{f"streams_{count}": {**fps, "times": fps["keywarp"] / fps["per_frame"]}})
    parts = [f"{kind} {case.figures[kind]['ms']:.2f} ms" for kind in ("key", "propagated")]
    for count in STREAMS:
        found = case.figures[f"streams_{count}"]
        serial = f", {found['serial']:.0f} one at a time" if count > 1 else ""
        parts.append(f"{found['keywarp']:.0f} fps on {count} ({found['times']:.1f}x per frame{serial})")
    case.record(summary=f"{engine.backend.name} {engine.backend.precision}: {', '.join(parts)}")


def _latency(
    seconds: float, process: Callable[[NDArray[np.uint8]], FrameResult], frames: Sequence[NDArray[np.uint8]]
) -> dict[str, float]:
    """Return milliseconds a frame, medians: all of it, and the part of the networks and of the work after them."""
    results: list[FrameResult] = []
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while len(times) < WARM_UP + 3 or time.perf_counter() < ends:
        began = time.perf_counter()
        results.append(process(frames[len(times) % len(frames)]))
        times.append(time.perf_counter() - began)
    return {
        "ms": 1000 * statistics.median(times[WARM_UP:]),
        "inference_ms": 1000 * statistics.median(result.inference for result in results[WARM_UP:]),
        "postprocess_ms": 1000 * statistics.median(result.postprocess for result in results[WARM_UP:]),
        "frames": len(times) - WARM_UP,
    }


def _stream_fps(
    engine: Engine,
    frames: Sequence[NDArray[np.uint8]],
    streams: int,
    interval: int,
    seconds: float,
    *,
    serial: bool = False,
) -> float:
    """Return the frames a second of all streams together, each with two frames waiting, on all lanes or on one."""
    executor = Executor() if serial else Executor(engine.lanes, in_flight=engine.in_flight)
    sessions = [StreamSession(engine, FixedInterval(interval)) for _ in range(streams)]
    waiting: list[list[Future[FrameResult]]] = [[] for _ in sessions]
    done, number = 0, 0
    began = time.perf_counter()
    while done < streams * INTERVAL or time.perf_counter() - began < seconds:
        for session, queue in zip(sessions, waiting, strict=True):
            while len(queue) < IN_FLIGHT:
                queue.append(executor.submit(session, frames[number % len(frames)]))
            queue.pop(0).result()
            done += 1
        number += 1
    elapsed = time.perf_counter() - began
    executor.close()
    return done / elapsed
