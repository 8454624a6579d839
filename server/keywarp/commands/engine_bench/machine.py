"""What the figures were measured on."""

import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from keywarp.engines.memory import release_unused_memory
from keywarp.engines.processor import int8_instructions

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch", "torchvision")
_MATRICES = re.compile(r"avx2|avx512(f|_vnni|_bf16|_fp16)|avx_vnni|amx_\w+|asimd|asimddp|i8mm|bf16|sve\d?")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and its software."""

    processor: str
    cores: int  # that this process may use
    instructions: tuple[str, ...]  # those for vectors and matrices, as Linux calls them
    int8: str  # the instructions for products of int8, see `keywarp.engines.processor`
    system: str
    runtimes: dict[str, str]  # versions of those that are installed

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.runtimes.items())
        return f"{self.cores} cores of {self.processor} ({', '.join(self.instructions)}); {versions}"


def describe_machine() -> Machine:
    """Describe this machine."""
    return Machine(
        processor=_processor_field("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        instructions=tuple(
            flag
            for flag in (_processor_field("flags") or _processor_field("Features")).split()
            if _MATRICES.fullmatch(flag)
        ),
        int8=int8_instructions(),
        system=platform.platform(terse=True),
        runtimes=dict(_versions()),
    )


def resident_bytes() -> int | None:
    """Return the memory of this process that is in use, or None where it isn't known (except on Linux)."""
    release_unused_memory()
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in RUNTIMES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor_field(name: str) -> str:
    """Return a field of the first processor that Linux lists, or "" on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), "")
