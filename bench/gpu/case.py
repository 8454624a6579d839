"""A check while it runs: what it may use, and the figures that it finds."""

import contextlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from keywarp.engines.backends.tensorrt.driver import CudaDriver, Driver
from keywarp.engines.devices import Gpu, list_gpus

DRY_GPU = Gpu(0, "a stand-in on the CPU", "none", (8, 6), 2**30)


class SkippedError(Exception):
    """The check can't run here. The message says what is missing."""


class FailedError(Exception):
    """The check ran, and found something wrong."""


@dataclass
class Case:
    """One check that runs.

    Attributes:
        name: The check's name.
        folder: The folder of all results, and of what checks make for each other.
        dry: Whether it runs on the CPU, on small images and with stand-ins, to find mistakes in the check itself.
    """

    name: str
    folder: Path
    dry: bool
    figures: dict[str, Any] = field(default_factory=dict)

    def record(self, **figures: Any) -> None:
        """Keep figures, also if the check doesn't end in time."""
        self.figures |= figures
        partial = self.folder / f"{self.name}.partial"
        partial.write_text(json.dumps(self.figures), "utf-8")

    def earlier(self, name: str) -> Mapping[str, Any]:
        """Return the figures of another check, or none if it hasn't passed."""
        try:
            figures: Mapping[str, Any] = json.loads((self.folder / f"{name}.json").read_text("utf-8"))["figures"]
        except (OSError, ValueError, KeyError):
            return {}
        return figures

    def load_cuda(self) -> None:
        """Load CUDA's libraries with torch, if it is there, for runtimes in folders from which they don't find them."""
        if not self.dry:
            with contextlib.suppress(ImportError):
                importlib.import_module("torch")

    @cached_property
    def gpu(self) -> Gpu:
        """The best GPU of this machine.

        Raises:
            SkippedError: If there is none.
        """
        if self.dry:
            return DRY_GPU
        found = sorted(list_gpus(), key=lambda gpu: (gpu.capability, gpu.memory), reverse=True)
        if not found:
            raise SkippedError("no NVIDIA GPU, or no nvidia-ml-py to find it with")
        return found[0]

    @cached_property
    def driver(self) -> Driver:
        """The GPU's driver, or its stand-in."""
        if self.dry:
            from bench.gpu.stand_in import ShimDriver

            return ShimDriver(self.folder)
        return CudaDriver(self.gpu.index)

    @cached_property
    def kernel_driver(self) -> Driver:
        """The GPU's driver, or a stand-in that runs all kernels but the warp's, compiled for the CPU."""
        if not self.dry:
            return self.driver
        from tests.engines.cuda.kernel_shim import KernelDriver, Library

        folder = self.folder / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        return KernelDriver(*(Library(folder, name) for name in ("detection", "images", "labels")))
