"""Compile bundles before they are served, for this machine's device or ahead of time for other machines' GPUs."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keywarp.engines.backends import Backend
from keywarp.engines.bundle import Bundle
from keywarp.engines.errors import BackendError
from keywarp.engines.fusion import FusedGraph, GraphStyle, fuse_all
from keywarp.engines.last_step import cut_last_step
from keywarp.engines.motion import MotionSource
from keywarp.engines.preparation import input_size

Size = tuple[int, int]  # height and width of frames, pixels


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """One compiled graph."""

    graph: str  # `key` or `propagate`
    height: int  # of the networks' input, pixels
    width: int  # of the networks' input, pixels
    target: str  # the device's name, or the compute capability
    precision: str
    seconds: float  # compile time; of a cached TensorRT plan, the time when it was built
    size: int  # bytes on disk
    cached: bool  # whether it was in the cache already
    plugins: int | None = None  # number of warp plugins in a TensorRT plan
    file: str | None = None  # path of a TensorRT plan


def build_here(
    bundle: Bundle, backend: Backend, sizes: Sequence[Size], cache: Path, motion: MotionSource | None = None
) -> Iterator[BuiltGraph]:
    """Compile a bundle for the device of a backend, and load it there.

    Args:
        bundle: The bundle.
        backend: A backend that keeps compiled graphs in `cache`.
        sizes: The sizes of the frames to compile for.
        cache: The folder that the backend was opened with.
        motion: The motion source, or None for the bundle's default.

    Yields:
        Each graph when it is compiled.

    Raises:
        BackendError: If the runtime refuses a graph, or keeps no compiled graphs.
        BundleError: If the graphs don't fit together.
    """
    if backend.name in ("onnxruntime", "onnxruntime-cuda"):
        raise BackendError(
            f"{backend.name} keeps no compiled graphs on disk, so there is nothing to build: use another backend"
        )
    source = motion or MotionSource.parse(bundle.manifest.motion)
    for height, width, name, graph in _graphs(bundle, sizes, source, backend.style):
        before, started = _files(cache), time.perf_counter()
        backend.compile(graph.model, graph.resident)
        seconds, after = time.perf_counter() - started, _files(cache)
        new = sum(size for file, size in after.items() if before.get(file) != size)
        yield BuiltGraph(name, height, width, backend.device, backend.precision, seconds, new, cached=new == 0)


def build_ahead(
    bundle: Bundle,
    capabilities: Sequence[tuple[int, int]],
    precision: str,
    sizes: Sequence[Size],
    cache: Path,
    motion: MotionSource | None = None,
) -> Iterator[BuiltGraph]:
    """Build TensorRT plans with TensorRT for RTX, for GPUs of other machines.

    Args:
        bundle: The bundle.
        capabilities: The GPUs' compute capabilities.
        precision: `fp32` or `fp16`.
        sizes: The sizes of the frames to compile for.
        cache: The folder for the plans. On the other machines it is the folder `engines` in their `KEYWARP_CACHE`.
        motion: The motion source, or None for the bundle's default.

    Yields:
        Each plan when it is built.

    Raises:
        BackendError: If TensorRT for RTX isn't installed, doesn't support a compute capability, or refuses a graph.
        BundleError: If the graphs don't fit together.
    """
    from keywarp.engines.backends.tensorrt.builder import PlanBuilder, Target
    from keywarp.engines.backends.tensorrt.library import open_library
    from keywarp.engines.backends.tensorrt.plan_cache import FOLDER, PlanCache

    plans, library = PlanCache(cache / FOLDER), open_library()
    builders = [PlanBuilder(library, Target(capability), precision, plans) for capability in capabilities]
    source = motion or MotionSource.parse(bundle.manifest.motion)
    for height, width, name, graph in _graphs(bundle, sizes, source, GraphStyle(last_step=True)):
        model, _ = cut_last_step(graph.model)  # as the backend does, so that it finds the plan
        for builder in builders:
            plan, cached = builder.plan(model, graph.resident)
            file = plans.path(plan.header.key)
            if not file.exists():
                raise BackendError(f"can't write {file}: free some space there, or use another folder")
            yield BuiltGraph(
                name,
                height,
                width,
                builder.target.text,
                precision,
                plan.header.seconds,
                file.stat().st_size,
                cached,
                plan.header.warps,
                str(file),
            )


def _graphs(
    bundle: Bundle, sizes: Sequence[Size], motion: MotionSource, style: GraphStyle
) -> Iterator[tuple[int, int, str, FusedGraph]]:
    """Yield all graphs, once for each input size, since frames of several sizes may share one."""
    for height, width in dict.fromkeys(input_size(*size, bundle.manifest.image) for size in sizes):
        for name, graph in fuse_all(bundle, height, width, motion, style).items():
            yield height, width, name, graph


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
