"""Run a task's last step on the device, in the stream of the plan before it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.backends.tensorrt.driver import Driver
from keywarp.engines.backends.tensorrt.program import Executable, TensorSpec
from keywarp.engines.errors import BundleError
from keywarp.engines.last_step import ROW, LastStep
from keywarp.engines.signatures import HEAD_OUTPUTS


class LastStepKernels(Protocol):
    """The kernels of a last step, for one shape of the tensors before it."""

    def enqueue(self, inputs: Sequence[int], output: int, stream: int) -> None:
        """Queue all kernels.

        Args:
            inputs: The device addresses of what the plan gave, in the order of `LastStep.inputs`.
            output: The device address of the result.
            stream: The stream to queue them in.

        Raises:
            BackendError: If the device refuses a launch.
        """
        ...


class FinishedExecutable:
    """An executable and the last step after it, which share a stream; see `Executable`.

    What the executable gives for the last step stays in buffers of this object. Runs in one stream may thus follow each
    other at once, as with the executable itself.
    """

    def __init__(
        self,
        executable: Executable,
        step: LastStep,
        driver: Driver,
        memory: DeviceMemory,
        capability: tuple[int, int],
    ) -> None:
        """Load the kernels, and allocate what is between the two.

        Args:
            executable: The loaded plan, whose outputs include the inputs of the last step.
            step: The last step.
            driver: The device's driver.
            memory: The device's pool of buffers.
            capability: The device's compute capability.

        Raises:
            BackendError: If the device is full, or NVRTC can't compile the kernels.
            BundleError: If the head's outputs don't have the shapes that the manifest leads to.
        """
        self._executable, self._step = executable, step
        self._kernels, output = _open(step, executable.outputs, driver, memory, capability)
        self._between = {name: memory.buffer(executable.outputs[name].size) for name in step.inputs}
        self.inputs: Mapping[str, TensorSpec] = executable.inputs
        others = {name: spec for name, spec in executable.outputs.items() if name not in step.inputs}
        self.outputs: Mapping[str, TensorSpec] = {step.output: output, **others}

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """See `Executable.enqueue`."""
        own = {name: address for name, address in addresses.items() if name != self._step.output}
        between = {name: buffer.address for name, buffer in self._between.items()}
        self._executable.enqueue(own | between, stream)
        self._kernels.enqueue([between[name] for name in self._step.inputs], addresses[self._step.output], stream)


def _open(
    step: LastStep,
    outputs: Mapping[str, TensorSpec],
    driver: Driver,
    memory: DeviceMemory,
    capability: tuple[int, int],
) -> tuple[LastStepKernels, TensorSpec]:
    """Return a step's kernels, and the type and shape of the result."""
    size = step.height, step.width
    first = outputs[step.inputs[0]].shape
    batch = first[0]
    if step.detection is None:
        from keywarp.engines.backends.tensorrt.device_labels import DeviceLabeller

        cells = tuple(-(-side // step.stride) for side in size)
        if len(first) != 4 or first[2:] != cells:
            raise BundleError(f"head.onnx should give scores of {cells} cells, but they have shape {first}")
        shape = batch, first[1], *cells
        labeller = DeviceLabeller(driver, memory, capability, shape, step.stride, *size)
        return labeller, TensorSpec(np.dtype(np.uint8), (batch, *size))
    from keywarp.engines.backends.tensorrt.device_detection import DeviceRegionDetector
    from keywarp.engines.detection.outputs import check_outputs
    from keywarp.engines.detection.regions import map_shapes

    names = HEAD_OUTPUTS["regions"]
    shapes = map_shapes(step.detection, step.classes, *size)
    found = dict(zip(names, (outputs[name] for name in step.inputs), strict=True))
    check_outputs(found, {name: (batch, *shape[1:]) for name, shape in shapes.items()})
    detector = DeviceRegionDetector(driver, memory, capability, step.detection, step.classes, *size, batch=batch)
    return detector, TensorSpec(np.dtype(np.float32), (batch, 1 + step.detection.limit, ROW))
