"""What this machine's processor can do."""

import os
import platform
from functools import cache
from pathlib import Path

# Flags of /proc/cpuinfo, the fastest instructions first. Without any of these, products of int8 are summed in 16 bits,
# which is no faster than they are exact: they may overflow.
_X86 = (("amx_int8", "amx"), ("avx512_vnni", "vnni"), ("avx_vnni", "vnni"))
_ARM = (("i8mm", "i8mm"), ("asimddp", "dotprod"))
_LANES = 4  # at most, since more weren't measured, and each holds the weights
FRAMES_IN_FLIGHT = 4  # on a GPU; more wait for the interpreter (python -m bench.gpu.in_flight), and each holds buffers


@cache
def int8_instructions() -> str:
    """Return the processor's instructions for products of int8: amx, vnni, i8mm, dotprod, or "" if it has none.

    Precisions are measured on a processor, and chosen by `auto` on those with the same instructions. Which instructions
    there are is known on Linux, and of Apple's processors.
    """
    flags = _flags()
    for flag, name in (*_X86, *_ARM):
        if flag in flags:
            return name
    return "dotprod" if platform.machine() == "arm64" and platform.system() == "Darwin" else ""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows


def usual_lanes(threads: int = 0) -> int:
    """Return how many frames of different streams run at the same time.

    The small layers of an inference, and the work around it, use one core. So frames of up to four streams run beside
    each other, each on as many cores.

    Args:
        threads: The number of threads of all frames together, or 0 for a thread on each core.
    """
    return min(threads or available_cores(), _LANES)


def _flags() -> frozenset[str]:
    """Return the processor's flags, or none if the system doesn't list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
