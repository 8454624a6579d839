"""The warp's kernels: their results against float64, with poisoned outputs, and their bandwidth."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from bench.gpu import bandwidth
from bench.gpu.bandwidth import buffer_sets
from bench.gpu.case import Case, FailedError
from bench.gpu.device_arrays import DeviceArrays
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher
from keywarp.engines.cuda import kernels
from tests.engines.cuda import shim
from tests.engines.cuda.cases import battery, random_case, worst

HEADER: Final = 64  # bytes before a packed case's tensors
PAPER: Final = (1, 1024, 38, 63)  # the features of a frame of 600x1000


def run(case: Case) -> None:
    """Check all kernels, then measure them."""
    cases = battery()[::9] if case.dry else battery()
    shape = (1, 16, 10, 12) if case.dry else (1, 64, *PAPER[2:])
    cases = [*cases, *(random_case(1, shape, layout=layout, dtype=dtype) for layout, dtype in kernels.KERNELS)]
    check_results(case, cases)
    for layout, dtype in kernels.KERNELS:
        measure(case, layout, dtype)


def check_results(case: Case, cases: Sequence[shim.Case]) -> None:
    """Run cases, and compare each with Eq. 2 and 3 in float64.

    Raises:
        FailedError: If a result is wrong, isn't written whole, or something is written behind it.
    """
    launcher = WarpLauncher(case.driver, case.gpu.capability)
    errors: dict[str, float] = {}
    for number, one in enumerate(cases):
        name = kernels.KERNELS[one.layout, one.dtype]
        try:
            error = worst(one, launch(launcher, case, one))
        except FailedError as failure:
            raise FailedError(f"case {number}, {name}: {failure}") from failure
        errors[name] = max(errors.get(name, 0.0), error)
        if not error <= 1:
            raise FailedError(f"case {number}, {name}: the error is {error:.3g} times the tolerance")
    case.record(
        cases=len(cases),
        errors=errors,
        summary=f"{len(cases)} cases, errors up to {max(errors.values()):.2f} of the tolerance",
    )


def launch(launcher: WarpLauncher, case: Case, one: shim.Case) -> shim.Floats:
    """Run one case on the device, and return the warped features.

    Raises:
        FailedError: If something is written outside of the result.
    """
    size, item = one.size, np.dtype(shim.NUMPY[one.dtype]).itemsize
    shift = one.shifted * item
    packed = one.packed()[HEADER:]
    flow_size = one.flow.size * item
    with DeviceArrays(case.driver) as memory:
        features = memory.filled(packed[:size], shift)
        flow = memory.filled(packed[size : size + flow_size], shift)
        scale = None if one.scale is None else memory.filled(packed[size + flow_size :], shift)
        warped = memory.poisoned(size + shift)
        addresses = (features.address, flow.address, scale.address if scale else 0, warped.address)
        shifted = tuple(address and address + shift for address in addresses)
        launcher.launch(one.layout, one.dtype, one.features.shape, one.flow.shape, shifted, memory.stream)
        content, untouched = memory.read(warped)
    if not untouched or content[:shift] != b"\xff" * shift:
        raise FailedError("it writes outside of its result")
    result, padding = one.unpacked(content[shift:])
    if padding.any():
        raise FailedError("the padding isn't zero")
    return result


def measure(case: Case, layout: kernels.Layout, dtype: kernels.DType) -> None:
    """Measure the bandwidth of a kernel at the paper's size, with buffers that take turns so that no cache helps."""
    shape = (1, 16, 10, 12) if case.dry else PAPER
    one = random_case(2, shape, layout=layout, dtype=dtype)
    packed, size = one.packed()[HEADER:], one.size
    flow_size = one.flow.size * np.dtype(shim.NUMPY[dtype]).itemsize
    moved = 3 * size + flow_size  # features and scale are read, the result is written
    sets = buffer_sets(case, moved)
    launcher = WarpLauncher(case.driver, case.gpu.capability)
    with DeviceArrays(case.driver) as memory:
        parts = packed[:size], packed[size : size + flow_size], packed[size + flow_size :]
        buffers = [
            (*(memory.filled(part).address for part in parts), memory.poisoned(size).address) for _ in range(sets)
        ]

        def queue(number: int) -> None:
            launcher.launch(layout, dtype, shape, one.flow.shape, buffers[number], memory.stream)

        figure = bandwidth.measure(case, case.driver, memory.stream, moved, sets, queue)
    name = kernels.KERNELS[layout, dtype]
    case.record(bandwidth={**case.figures.get("bandwidth", {}), name: figure})
