"""What a backend is to the engine: it compiles graphs into programs, and programs run on tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import onnx
from numpy.typing import NDArray

Precision = Literal["auto", "fp32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """An opaque tensor on a device: made by one program, taken by another of the same backend."""

    value: Any


Tensor = NDArray[Any] | DeviceTensor


class Program(Protocol):
    """One compiled graph. Not thread-safe: one run at a time."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            inputs: By the graph's names; C-contiguous host arrays or tensors of this backend.

        Returns:
            All outputs by name: `DeviceTensor` those compiled as resident; the others host arrays that belong to the
            program and are overwritten when it runs again.
        """
        ...


class Backend(Protocol):
    """A runtime on a device at a precision."""

    reason: str  # why it was chosen

    @property
    def name(self) -> str:
        """See `BackendName`."""
        ...

    @property
    def device(self) -> str:
        """What it really runs on, as people call it."""
        ...

    @property
    def precision(self) -> str:
        """What the arithmetic really uses."""
        ...

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> Program:
        """Compile a graph.

        Args:
            model: With static shapes, for speed.
            resident: The outputs that stay on the device.

        Raises:
            BackendError: The runtime refuses the graph.
        """
        ...
