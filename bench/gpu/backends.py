"""A backend of the card against ONNX Runtime on the CPU: every graph in fp32, and streams in the card's precision."""

import gc
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.gpu.case import Case, FailedError, SkippedError
from bench.gpu.frames import moving_frames
from keywarp.engines import (
    BackendError,
    Bundle,
    Engine,
    FixedInterval,
    FrameResult,
    StreamSession,
    load_bundle,
    open_backend,
)
from keywarp.engines.comparison.agreement import open_measure
from keywarp.engines.parity import TOLERANCE, compare_backends

MODELS: Final = Path(__file__).parents[2] / "models"
BUNDLES: Final = ("street", "street-detect")
SIZE: Final = (288, 512)
DRY_SIZE: Final = (64, 96)
INTERVAL: Final = 5
AGREEMENT: Final = 0.97  # of results in fp16 with those in fp32 on the CPU


def run(case: Case, name: Any) -> None:
    """Compare a backend on the shipped bundles.

    Raises:
        FailedError: If a result differs by more than rounding.
        SkippedError: If the backend can't be opened here.
    """
    case.load_cuda()
    real: Any = "onnxruntime" if case.dry else name
    gpu = None if case.dry else case.gpu
    height, width = DRY_SIZE if case.dry else SIZE
    case.record(backend=name, precision=None if gpu is None else gpu.best_precision)
    try:
        backend = open_backend(real, "fp32", gpu=gpu)
    except BackendError as error:
        raise SkippedError(str(error)) from error
    case.record(device=backend.device)
    bundles = BUNDLES[-1:] if case.dry else BUNDLES
    for chosen in bundles:
        bundle = load_bundle(MODELS / chosen)
        rows = compare_backends(bundle, [open_backend("onnxruntime", "fp32"), backend], height, width)
        worst = max(rows, key=lambda row: row.relative)
        case.record(**{f"{chosen}_fp32": {f"{row.graph} {row.output}": row.relative for row in rows}})
        if not worst.agrees:
            raise FailedError(
                f"{chosen}: {worst.graph} {worst.output} differs by {worst.relative:.2g}, more than {TOLERANCE}"
            )
        gc.collect()
    del backend
    for chosen in bundles:
        bundle = load_bundle(MODELS / chosen)
        figures = compare_streams(bundle, real, case, 4 if case.dry else 20)
        case.record(**{f"{chosen}_stream": figures})
        if min(figures["key"], figures["propagated"]) < AGREEMENT:
            raise FailedError(f"{chosen}: results agree by {figures} only, less than {AGREEMENT}")
    agreed = [min(case.figures[f"{chosen}_stream"].values()) for chosen in bundles]
    shares = " and ".join(f"{100 * share:.1f}" for share in agreed)
    case.record(summary=f"fp32 agrees; streams in {case.figures['precision']} agree by {shares} %")


def compare_streams(bundle: Bundle, name: Any, case: Case, count: int) -> dict[str, float]:
    """Return how far a stream's results agree with those in fp32 on the CPU, on key and on propagated frames."""
    height, width = DRY_SIZE if case.dry else SIZE
    frames = moving_frames(count, height, width, seed=1)
    gpu = None if case.dry else case.gpu
    engine = Engine(bundle, name, "fp32" if case.dry else "auto", gpu=gpu, cache=case.folder / "plans")
    case.record(precision=engine.backend.precision)
    found = _results(engine, frames)
    expected = _results(Engine(bundle, "onnxruntime", "fp32"), frames)
    measure = open_measure(bundle.manifest, confidence=0.3)
    counts: dict[str, Any] = {}
    for one, other in zip(found, expected, strict=True):
        kind = "key" if one.kind.value == "key" else "propagated"
        counted = measure.count(one.output, other.output)
        counts[kind] = counts[kind] + counted if kind in counts else counted
    return {kind: measure.sameness(np.asarray(total)) for kind, total in counts.items()}


def _results(engine: Engine, frames: list[Any]) -> list[FrameResult]:
    session = StreamSession(engine, FixedInterval(INTERVAL))
    results = [session.process(frame) for frame in frames]
    engine.close()
    return results
