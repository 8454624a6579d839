"""The interface of a backend, which compiles graphs into programs that run on tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import onnx
from numpy.typing import NDArray

from keywarp.engines.fusion import GraphStyle

if TYPE_CHECKING:
    from keywarp.engines.frames import FrameStore

Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """An opaque tensor on a device. A program of the same backend accepts it as input."""

    value: Any


Tensor = NDArray[Any] | DeviceTensor


class Program(Protocol):
    """One compiled graph. It isn't thread-safe: only one run at a time."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            inputs: The inputs by the graph's names, as C-contiguous host arrays or tensors of this backend.

        Returns:
            All outputs by name. Outputs that were compiled as resident are `DeviceTensor`s. The others are host arrays
            that belong to the program, which overwrites them when it runs again.
        """
        ...


class Backend(Protocol):
    """A runtime on a device at a precision."""

    reason: str  # why this backend was chosen
    style: GraphStyle  # how its graphs are fused
    in_flight: bool  # whether each lane is a frame in flight on the whole device, not a share of the device

    @property
    def name(self) -> str:
        """The backend's name, see `BackendName`."""
        ...

    @property
    def device(self) -> str:
        """The name of the device that it actually runs on."""
        ...

    @property
    def precision(self) -> str:
        """The precision that the arithmetic actually uses."""
        ...

    @property
    def frames(self) -> "FrameStore | None":
        """What keeps frames that a decoder leaves on the device, or None if frames must be arrays."""
        ...

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> Program:
        """Compile a graph.

        Args:
            model: The graph, with static shapes for speed.
            resident: The names of the outputs that stay on the device.

        Raises:
            BackendError: If the runtime refuses the graph.
        """
        ...

    def compile_lanes(
        self, model: onnx.ModelProto, resident: frozenset[str] = frozenset(), lanes: int = 2
    ) -> tuple[Program, ...]:
        """Compile a graph into programs that run at the same time, each on its share of the device or in flight on it.

        Args:
            model: See `compile`.
            resident: See `compile`.
            lanes: The number of programs.

        Returns:
            The programs. Each takes the resident tensors of any of them, and of the program that `compile` gives.

        Raises:
            BackendError: If the runtime refuses the graph.
        """
        ...
