"""Compiling a bundle before it is served: for this machine's device, or ahead of time for GPUs that are elsewhere."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keywarp.engines.backends import Backend
from keywarp.engines.bundle import Bundle
from keywarp.engines.errors import BackendError
from keywarp.engines.fusion import FusedGraph, Motion, fuse_all
from keywarp.engines.preparation import input_size

Size = tuple[int, int]  # height and width of frames, pixels


@dataclass(frozen=True, slots=True)
class Built:
    """One compiled graph."""

    graph: str  # `key` or `propagate`
    height: int  # of the network's input
    width: int
    target: str  # the device, or the compute capability
    precision: str
    seconds: float  # that it took, or took when it was built
    size: int  # bytes on disk
    cached: bool  # it was there already
    plugins: int | None = None  # the warp's, in a TensorRT plan
    file: str | None = None  # a TensorRT plan's


def build_here(
    bundle: Bundle, backend: Backend, sizes: Sequence[Size], cache: Path, motion: Motion = "network"
) -> Iterator[Built]:
    """Compile for the device of a backend, which loads what it compiled.

    Args:
        bundle: The bundle.
        backend: One that keeps what it compiles in `cache`.
        sizes: Of the frames that will come.
        cache: The folder that the backend was opened with.
        motion: See `fuse_all`.

    Yields:
        Each graph when it is done.

    Raises:
        BackendError: The runtime refuses a graph, or keeps nothing.
        BundleError: The graphs don't fit together.
    """
    if backend.name in ("onnxruntime", "onnxruntime-cuda"):
        raise BackendError(f"{backend.name} keeps nothing on disk: there is nothing to build")
    for height, width, name, graph in _graphs(bundle, sizes, motion):
        before, started = _files(cache), time.perf_counter()
        backend.compile(graph.model, graph.resident)
        seconds, after = time.perf_counter() - started, _files(cache)
        new = sum(size for file, size in after.items() if before.get(file) != size)
        yield Built(name, height, width, backend.device, backend.precision, seconds, new, cached=new == 0)


def build_ahead(
    bundle: Bundle,
    capabilities: Sequence[tuple[int, int]],
    precision: str,
    sizes: Sequence[Size],
    cache: Path,
    motion: Motion = "network",
) -> Iterator[Built]:
    """Build TensorRT plans for GPUs that aren't here, with TensorRT for RTX; where they are, it finds them in `cache`.

    Args:
        bundle: The bundle.
        capabilities: Compute capabilities of the GPUs.
        precision: `fp32` or `fp16`.
        sizes: Of the frames that will come.
        cache: Where plans go: the `KEYWARP_CACHE` of those machines, folder `engines`.
        motion: See `fuse_all`.

    Yields:
        Each plan when it is done.

    Raises:
        BackendError: TensorRT for RTX isn't installed, doesn't know a compute capability, or refuses a graph.
        BundleError: The graphs don't fit together.
    """
    from keywarp.engines.backends.tensorrt.builder import PlanBuilder, Target
    from keywarp.engines.backends.tensorrt.library import open_library
    from keywarp.engines.backends.tensorrt.plan_cache import FOLDER, PlanCache

    plans, library = PlanCache(cache / FOLDER), open_library()
    builders = [PlanBuilder(library, Target(capability), precision, plans) for capability in capabilities]
    for height, width, name, graph in _graphs(bundle, sizes, motion):
        for builder in builders:
            plan, cached = builder.plan(graph.model, graph.resident)
            file = plans.path(plan.header.key)
            if not file.exists():
                raise BackendError(f"{file} can't be written: free some space there, or name another folder")
            yield Built(
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


def _graphs(bundle: Bundle, sizes: Sequence[Size], motion: Motion) -> Iterator[tuple[int, int, str, FusedGraph]]:
    """All graphs, each input size once: frames of several sizes may have the same."""
    for height, width in dict.fromkeys(input_size(*size, bundle.manifest.image) for size in sizes):
        for name, graph in fuse_all(bundle, height, width, motion).items():
            yield height, width, name, graph


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
