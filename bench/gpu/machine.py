"""The card, its driver and libraries, and what copies and matrix products reach on it."""

import importlib.metadata
import importlib.util
import platform
import statistics
import time
from functools import partial
from typing import Any, Final

from bench.gpu.case import Case
from keywarp.commands.engine_bench.machine import describe_machine

PACKAGES: Final = (
    *("cuda-bindings", "nvidia-ml-py", "numpy", "onnx", "onnxruntime-gpu", "onnxruntime", "tensorrt", "tensorrt-rtx"),
    *("torch", "nvidia-cudnn-cu13", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"),
)


def run(case: Case) -> None:
    """Describe the machine, and measure the ceilings with torch if it is there."""
    gpu, described = case.gpu, describe_machine()
    case.record(
        gpu=gpu.name,
        capability=gpu.capability_text,
        memory_gib=round(gpu.memory / 2**30, 1),
        driver=gpu.driver,
        python=platform.python_version(),
        processor=f"{described.cores} cores of {described.processor}",
        system=described.system,
        packages={name: found for name in PACKAGES if (found := _version(name))},
        summary=str(gpu),
    )
    if importlib.util.find_spec("torch"):
        _measure(case)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _measure(case: Case) -> None:
    import torch

    if not case.dry and not torch.cuda.is_available():
        case.record(note="this torch finds no GPU, so ceilings weren't measured")
        return
    device = torch.device("cpu" if case.dry else "cuda")
    size, side = (2**20, 64) if case.dry else (2**31, 8192)
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _seconds(torch, device, partial(target.copy_, source))
    case.record(copy_gb_per_s=2 * size / seconds / 1e9)  # bytes read and written
    del source, target
    size = 2**20 if case.dry else 2**28
    host = torch.empty(size, dtype=torch.uint8, pin_memory=not case.dry)
    there = torch.empty(size, dtype=torch.uint8, device=device)
    upload = _seconds(torch, device, partial(there.copy_, host, non_blocking=True))
    download = _seconds(torch, device, partial(host.copy_, there, non_blocking=True))
    case.record(upload_gb_per_s=size / upload / 1e9, download_gb_per_s=size / download / 1e9)
    del host, there
    torch.backends.cuda.matmul.allow_tf32 = False
    products: dict[str, float] = {}
    for name in ("float32", "float16", "bfloat16"):
        left, right = (torch.randn(side, side, device=device).to(getattr(torch, name)) for _ in range(2))
        seconds = _seconds(torch, device, partial(torch.matmul, left, right))
        products[name] = 2 * side**3 / seconds / 1e12
    case.record(matrix_tflops=products)
    fastest = max(products.values())
    case.record(summary=f"{case.gpu}; copies {case.figures['copy_gb_per_s']:.0f} GB/s, matrices {fastest:.0f} TFLOP/s")


def _seconds(torch: Any, device: Any, work: Any) -> float:
    """Return the median seconds of some work, by the device's clock where it has one."""
    times = []
    for _ in range(8):
        if device.type == "cpu":
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times[3:])
