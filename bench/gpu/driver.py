"""The engine's programs on the real driver: page-locked memory, streams, events, features that stay on the device."""

import gc
import time
from collections.abc import Mapping

import numpy as np

from bench.gpu.case import Case, FailedError
from keywarp.engines.backends.interface import DeviceTensor, Tensor
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.backends.tensorrt.driver import OutOfDeviceMemoryError
from keywarp.engines.backends.tensorrt.plugin import WarpLauncher
from keywarp.engines.backends.tensorrt.program import Flight, TensorRTProgram, TensorSpec, Timing
from tests.engines.cuda import shim
from tests.engines.cuda.cases import random_case, worst

FLOAT = np.dtype(np.float32)


class WarpExecutable:
    """An `Executable` that is one launch of the warp's kernel, so that programs run without TensorRT."""

    def __init__(self, launcher: WarpLauncher, one: shim.Case) -> None:
        """Take the shapes of a case in fp32."""
        shape = one.features.shape
        specs = {"features": shape, "flow": one.flow.shape, "scale": shape}
        self.inputs: Mapping[str, TensorSpec] = {name: TensorSpec(FLOAT, size) for name, size in specs.items()}
        self.outputs: Mapping[str, TensorSpec] = {"warped": TensorSpec(FLOAT, shape)}
        self._launcher = launcher

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """See `Executable.enqueue`."""
        ordered = tuple(addresses[name] for name in ("features", "flow", "scale", "warped"))
        shape, flow = self.inputs["features"].shape, self.inputs["flow"].shape
        self._launcher.launch("nchw", "f32", shape, flow, ordered, stream)


def run(case: Case) -> None:
    """Run two programs in turns, the features of one of which stay on the device for the other.

    Raises:
        FailedError: If a result is wrong, or memory isn't given back.
    """
    case.driver.activate()
    launcher, memory = WarpLauncher(case.driver, case.gpu.capability), DeviceMemory(case.driver)
    shape, rounds = ((1, 16, 10, 12), 2) if case.dry else ((1, 1024, 38, 63), 20)
    cases = [random_case(seed, shape) for seed in range(2)]
    small = random_case(9, (1, 8, 6, 7))
    programs = {
        kept: TensorRTProgram(
            WarpExecutable(launcher, cases[0]), frozenset(["warped"] if kept else []), case.driver, memory, "warp"
        )
        for kept in (True, False)
    }
    times: list[Timing] = []
    for _ in range(rounds):
        # Both results stay on the device at once. A buffer that is given back too early would mix them up.
        tensors = [programs[True].run(_inputs(one))["warped"] for one in cases]
        for one, tensor in zip(cases, tensors, strict=True):
            assert isinstance(tensor, DeviceTensor)
            still: dict[str, Tensor] = {
                "features": tensor,
                "flow": np.zeros_like(one.flow),
                "scale": np.ones_like(one.features),
            }
            back = np.asarray(programs[False].run(still)["warped"])
            if not worst(one, back) <= 1:
                raise FailedError(f"the result is off by {worst(one, back):.3g} times the tolerance")
        if timing := programs[False].timing:
            times.append(timing)
    case.record(
        upload_ms=1000 * min(t.upload for t in times),
        compute_ms=1000 * min(t.compute for t in times),
        download_ms=1000 * min(t.download for t in times),
        held_bytes=memory.used,
    )
    alone = TensorRTProgram(
        WarpExecutable(launcher, small), frozenset(), case.driver, DeviceMemory(case.driver), "small"
    )
    if not worst(small, np.asarray(alone.run(_inputs(small))["warped"])) <= 1:
        raise FailedError("a second pool's result is wrong")
    _overlap(
        case, TensorRTProgram(WarpExecutable(launcher, cases[0]), frozenset(), case.driver, memory, "warp", 2), cases
    )
    del tensors, tensor, still, programs, alone
    gc.collect()
    if memory.used:
        raise FailedError(f"{memory.used} bytes aren't given back")
    _exhaust(case)
    parts = "upload {upload_ms:.2f}, warp {compute_ms:.3f}, download {download_ms:.2f} ms".format(**case.figures)
    case.record(summary=f"{rounds} rounds; {parts}")


def _overlap(case: Case, program: TensorRTProgram, cases: list[shim.Case]) -> None:
    """Measure runs one after another, and with two under way, whose results must be the same.

    Raises:
        FailedError: If a result is wrong.
    """
    runs = 4 if case.dry else 60
    seconds: dict[str, float] = {}
    for name, most in (("serial", 1), ("in_flight", 2)):
        flights: list[Flight] = []
        began = time.perf_counter()
        for number in range(runs + most):
            if len(flights) == most or number >= runs:
                warped = np.asarray(flights.pop(0).collect()["warped"])
                if number in (most, runs):
                    one = cases[(number - most) % 2]
                    if not worst(one, warped) <= 1:
                        raise FailedError(f"with {most} runs under way, a result is wrong")
            if number < runs:
                flights.append(program.submit(_inputs(cases[number % 2])))
        seconds[f"{name}_ms"] = 1000 * (time.perf_counter() - began) / runs
    case.record(**seconds)


def _exhaust(case: Case) -> None:
    """Ask for more memory than there is."""
    try:
        case.driver.allocate(2**45)
    except OutOfDeviceMemoryError:
        return
    raise FailedError("32 terabytes were allocated")


def _inputs(one: shim.Case) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    assert one.scale is not None
    return {"features": one.features, "flow": one.flow, "scale": one.scale}
