"""The choice of device and backend, with a fake NVML, since the tests need no GPU."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import onnxruntime as ort
import pytest

from keywarp.engines import BackendError, backends, choose_backend, open_backend
from keywarp.engines.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend
from keywarp.engines.devices import CudaDevice, Gpu, choose, list_gpus, read_gpus

K40 = Gpu(0, "Tesla K40m", "470.256", (3, 5), 12 * 2**30)
V100 = Gpu(0, "Tesla V100", "580.65", (7, 0), 16 * 2**30)
T4 = Gpu(1, "Tesla T4", "580.65", (7, 5), 16 * 2**30)
TWIN = Gpu(2, "Tesla T4", "580.65", (7, 5), 16 * 2**30)
A10 = Gpu(3, "NVIDIA A10", "580.65", (8, 6), 24 * 2**30)
H100 = Gpu(4, "NVIDIA H100", "580.65", (9, 0), 80 * 2**30)
B200 = Gpu(5, "NVIDIA B200", "580.65", (10, 0), 180 * 2**30)
ALL = {"tensorrt", "onnxruntime-cuda", "openvino", "onnxruntime"}


@dataclass
class FakeNvml:
    """A fake `pynvml` with the functions that are used."""

    gpus: list[Gpu] = field(default_factory=list)
    driver: bool = True
    opened: int = 0

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise self.NVMLError("NVML Shared Library Not Found")
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:  # noqa: N802
        if self.gpus[index].memory == 0:
            raise self.NVMLError("GPU is lost")
        return self.gpus[index]

    def nvmlDeviceGetPciInfo(self, gpu: Gpu) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(busId=f"0000:{gpu.index}:00.0".encode())

    def nvmlDeviceGetCudaComputeCapability(self, gpu: Gpu) -> tuple[int, int]:  # noqa: N802
        return gpu.capability

    def nvmlDeviceGetName(self, gpu: Gpu) -> str:  # noqa: N802
        return gpu.name

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return self.gpus[0].driver

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=gpu.memory)


def counted(_bus: str, number: int) -> CudaDevice:
    return CudaDevice(number)


def test_gpus_are_listed_with_their_properties_from_nvml() -> None:
    nvml = FakeNvml([V100, T4])
    assert read_gpus(nvml, counted) == [V100, T4]
    assert nvml.opened == 0
    assert str(T4) == "Tesla T4 (compute capability 7.5, 16 GiB, driver 580.65)"
    assert (T4.label, TWIN.label) == ("Tesla T4 (GPU 1)", "Tesla T4 (GPU 2)")


def test_gpus_have_their_index_in_cudas_order_and_hidden_ones_are_not_listed() -> None:
    order = {"0000:0:00.0": CudaDevice(1)}
    [gpu] = read_gpus(FakeNvml([V100, T4]), lambda bus, _: order.get(bus))
    assert (gpu.name, gpu.index) == ("Tesla V100", 1)


def test_a_part_of_a_gpu_has_its_own_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML describes the whole GPU, whose plans would be used for its parts (MIG)."""
    cuda = SimpleNamespace(
        CUresult=SimpleNamespace(CUDA_SUCCESS=0),
        cuInit=lambda _flags: (0,),
        cuDeviceGetByPCIBusId=lambda bus: (0, 0) if bus == b"0000:4:00.0" else (101, None),
        cuDeviceGetName=lambda size, _device: (0, b"NVIDIA H100 MIG 1g.10gb\0".ljust(size)),
        cuDeviceTotalMem=lambda _device: (0, 10 * 2**30),
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", cuda)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([T4, H100]))
    [gpu] = list_gpus()
    assert (gpu.index, gpu.name, gpu.memory) == (0, "NVIDIA H100 MIG 1g.10gb", 10 * 2**30)
    assert gpu.capability == (9, 0)


def test_a_lost_gpu_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    lost = Gpu(0, "Tesla T4", "580.65", (7, 5), 0)
    assert read_gpus(FakeNvml([lost, T4]), counted) == [T4]
    assert "GPU 0 is ignored: GPU is lost" in caplog.text


def test_without_a_driver_there_is_no_gpu() -> None:
    assert read_gpus(FakeNvml(driver=False), counted) == []


@pytest.mark.parametrize(
    ("installed", "gpus", "backend", "reason"),
    [
        (ALL, [T4], "tensorrt", "found Tesla T4 (compute capability 7.5, 16 GiB, driver 580.65)"),
        (ALL, [V100, T4], "tensorrt", "Tesla T4"),
        (ALL - {"tensorrt"}, [T4], "onnxruntime-cuda", "tensorrt isn't installed"),
        (ALL, [V100], "openvino", "ONNX Runtime's CUDA provider doesn't support compute capability 7.0"),
        (ALL, [K40], "openvino", "TensorRT doesn't support compute capability 3.5"),
        (ALL, [H100], "tensorrt", "found NVIDIA H100"),
        (ALL, [B200], "tensorrt", "found NVIDIA B200"),
        ({"openvino", "onnxruntime"}, [T4], "openvino", "onnxruntime-cuda isn't installed"),
        (ALL, [], "openvino", "there is no NVIDIA GPU"),
        ({"onnxruntime"}, [], "onnxruntime", "openvino isn't installed"),
    ],
)
def test_auto_takes_the_fastest_that_fits_and_says_why(
    installed: set[str], gpus: list[Gpu], backend: str, reason: str
) -> None:
    choice = choose(installed, gpus)
    assert choice is not None
    assert choice.backend == backend
    assert reason in choice.reason
    assert (choice.gpu is not None) == (backend in ("tensorrt", "onnxruntime-cuda"))


@pytest.mark.parametrize(
    ("backend", "gpus", "used"),
    [
        ("tensorrt", [V100, T4, TWIN, A10], (A10, T4, TWIN)),
        ("onnxruntime-cuda", [V100, T4, TWIN], (T4, TWIN)),
        ("onnxruntime-tensorrt", [B200, H100, T4], (H100, T4)),
        ("onnxruntime-cuda", [K40], (K40,)),  # requested, so the runtime itself reports that it can't
        ("tensorrt", [], ()),
    ],
)
def test_all_gpus_that_are_supported_are_used_the_best_first(
    backend: backends.BackendName, gpus: list[Gpu], used: tuple[Gpu, ...]
) -> None:
    choice = choose_backend(backend, gpus)
    assert (choice.gpus, choice.gpu) == (used, used[0] if used else None)


@pytest.mark.parametrize(
    ("gpu", "backend", "reason"),
    [
        (H100, "onnxruntime-cuda", "TensorRT for RTX doesn't support compute capability 9.0"),
        (B200, "openvino", "TensorRT for RTX doesn't support compute capability 10.0; ONNX Runtime's CUDA provider"),
        (T4, "tensorrt", "Tesla T4"),
    ],
)
def test_with_tensorrt_for_rtx_auto_takes_the_next_backend_on_gpus_that_it_does_not_support(
    gpu: Gpu, backend: str, reason: str
) -> None:
    choice = choose(ALL, [gpu], "tensorrt_rtx")
    assert choice is not None
    assert (choice.backend, reason in choice.reason) == (backend, True)


def test_several_gpus_are_all_named() -> None:
    choice = choose(ALL, [V100, T4, TWIN])
    assert choice is not None
    assert choice.gpus == (T4, TWIN)
    assert choice.reason == f"found {T4} and {TWIN}"


def test_nothing_installed_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose((), [T4]) is None
    monkeypatch.setattr(backends, "AVAILABLE", ())
    with pytest.raises(BackendError, match="extra `cpu`"):
        choose_backend(gpus=[])


def test_half_precision_is_used_on_gpus_that_are_faster_with_it() -> None:
    capabilities = [(3, 5), (5, 3), (6, 0), (6, 1), (7, 0), (8, 6), (12, 0)]
    precisions = [Gpu(0, "", "", capability, 0).best_precision for capability in capabilities]
    assert precisions == ["fp32", "fp16", "fp16", "fp32", "fp16", "fp16", "fp16"]


@pytest.mark.skipif(bool(list_gpus()), reason="there is a GPU")
@pytest.mark.parametrize("name", ["tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_missing_gpu_is_an_error_unless_the_cpu_is_allowed(name: backends.BackendName) -> None:
    with pytest.raises(BackendError, match=f"{name} needs an NVIDIA GPU, but none was found"):
        open_backend(name)
    backend = open_backend(name, "fp16", fallback=True)
    assert backend.name == "openvino"
    assert backend.reason.startswith(f"{name} can't be used: {name} needs an NVIDIA GPU")


def test_a_backend_says_why_it_was_chosen() -> None:
    assert open_backend("onnxruntime").reason == "it was requested"
    if not list_gpus():
        assert open_backend().reason == "there is no NVIDIA GPU"


@pytest.mark.parametrize(("provider", "called"), [("cuda", "CUDA"), ("tensorrt", "Tensorrt")])
def test_an_onnxruntime_without_gpu_support_is_refused(provider: str, called: str) -> None:
    if f"{called}ExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has it")
    with pytest.raises(BackendError, match=f"no {called}ExecutionProvider .*pip uninstall onnxruntime"):
        OnnxRuntimeGpuBackend(provider, T4)  # type: ignore[arg-type]


def test_a_provider_that_does_not_load_is_refused_although_onnxruntime_continues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An ONNX Runtime whose CUDA doesn't load runs on the CPU, as it really does here."""
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has it")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendError, match="runs probe with CPUExecutionProvider instead of CUDAExecutionProvider"),
    ):
        OnnxRuntimeGpuBackend("cuda", T4)


class FakeSession:
    """A session with a provider that loads, but has no code for the GPU."""

    def __init__(self, *_: Any, **how: Any) -> None:
        self._provider = how["providers"][0][0]

    def get_providers(self) -> list[str]:
        return [self._provider]

    def run(self, *_: Any) -> None:
        raise RuntimeError("CUDA error cudaErrorNoKernelImageForDevice")


PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_without_code_for_the_gpu_is_refused_when_it_is_opened(
    provider: Literal["cuda", "tensorrt"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: PROVIDERS)
    monkeypatch.setattr(ort, "InferenceSession", FakeSession)
    with pytest.raises(BackendError, match=r"can't run on Tesla V100 .*NoKernelImage.* supports .*7\.5, 8\.0"):
        OnnxRuntimeGpuBackend(provider, V100)


def test_tensorrt_is_loaded_before_its_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider needs libnvinfer.so.10, which the linker doesn't find in the package `tensorrt_libs`."""
    (tmp_path / "tensorrt_libs.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ort, "get_available_providers", lambda: PROVIDERS)
    loaded: list[bool] = []

    class Session(FakeSession):
        def run(self, *_: Any) -> None:
            loaded.append("tensorrt_libs" in sys.modules)

    monkeypatch.setattr(ort, "InferenceSession", Session)
    for provider in ("cuda", "tensorrt"):
        monkeypatch.delitem(sys.modules, "tensorrt_libs", raising=False)
        OnnxRuntimeGpuBackend(provider, T4)
    assert loaded == [False, True]
