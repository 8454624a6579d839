"""Plans that TensorRT for RTX really builds on this CPU for GPUs of other machines. None of them has run."""

import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from keywarp.engines import BackendError, load_bundle
from keywarp.engines.backends.half import to_half
from keywarp.engines.backends.tensorrt.backend import TensorRTBackend
from keywarp.engines.backends.tensorrt.builder import PlanBuilder, Target
from keywarp.engines.backends.tensorrt.driver import CudaDriver
from keywarp.engines.backends.tensorrt.library import open_library
from keywarp.engines.backends.tensorrt.plan_cache import PlanCache
from keywarp.engines.backends.tensorrt.plugin import VARIABLE, WarpLauncher, launching_with, plugin_creator
from keywarp.engines.backends.warping import WARP, simplify
from keywarp.engines.devices import CAPABILITIES, Gpu
from keywarp.engines.fusion import fuse_key, fuse_propagate, fuse_warp
from tests.engines.tensorrt.fake_driver import FakeDriver
from tests.engines.test_fusion import noise
from tests.tiny_bundle import tiny_bundle

pytestmark = pytest.mark.gpu_check

SHIPPED = Path(__file__).parents[3] / "models" / "street"
A10 = Gpu(index=0, name="NVIDIA A10", driver="580.65", capability=(8, 6), memory=24 * 2**30)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_shipped_model_becomes_plans_with_the_plugin(precision: str) -> None:
    bundle = load_bundle(SHIPPED)
    builder = PlanBuilder(open_library(), Target((8, 6)), precision)
    assert builder.warp == "python"
    for build, warps in ((fuse_key, 0), (fuse_propagate, 1), (fuse_warp, 1)):
        fused = build(bundle, 256, 384)
        plan, cached = builder.plan(fused.model, fused.resident)
        assert not cached
        assert plan.header.warps == warps
        assert (WARP.encode() in plan.content) == bool(warps)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (12, 0)])
def test_plans_are_built_for_other_gpus(capability: tuple[int, int], tmp_path: Path) -> None:
    fused = fuse_propagate(tiny_bundle(tmp_path / "tiny"), 64, 96)
    plan, _ = PlanBuilder(open_library(), Target(capability), "fp16").plan(fused.model)
    assert plan.header.key.capability == "{}.{}".format(*capability)
    assert plan.header.warps == 1


def test_an_unknown_compute_capability_is_refused_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(BackendError, match=r"can build for compute capability .*8\.6.*, not for 3\.5"):
        PlanBuilder(open_library(), Target((3, 5)), "fp32")


def test_tensorrt_for_rtx_supports_the_compute_capabilities_that_devices_says() -> None:
    library = open_library()
    assert library.name == "tensorrt_rtx"
    names = {name for name in library.module.ComputeCapability.__members__ if name.startswith("SM")}
    assert names == {f"SM{major}{minor}" for major, minor in CAPABILITIES["tensorrt_rtx"]}


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_only_floats_become_bytes(precision: str, tmp_path: Path) -> None:
    """TensorRT 10 refuses to cast integers to UINT8, which TensorRT for RTX allows."""
    fused = fuse_key(tiny_bundle(tmp_path / "tiny"), 64, 96)
    builder = PlanBuilder(open_library(), Target((8, 6)), precision)
    adapted = onnx.load_from_string(builder.adapt(fused.model, fused.resident))
    values = onnx.shape_inference.infer_shapes(adapted).graph.value_info
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    casts = [node for node in adapted.graph.node if node.op_type == "Cast"]
    [to_bytes] = [node for node in casts if helper.get_node_attr_value(node, "to") == onnx.TensorProto.UINT8]
    assert kinds[to_bytes.input[0]] in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    frame = noise(1, 64, 96)
    options = {"providers": ["CPUExecutionProvider"]}
    labels = [
        ort.InferenceSession(graph.SerializeToString(), **options).run(["labels"], {"frame": frame})[0]
        for graph in (fused.model, adapted)
    ]
    assert (labels[0] == labels[1]).mean() > 0.99


def test_a_plan_is_built_once(tmp_path: Path) -> None:
    fused = fuse_key(tiny_bundle(tmp_path / "tiny"), 64, 96)
    cache = PlanCache(tmp_path / "plans")
    builder = PlanBuilder(open_library(), Target((8, 6)), "fp16", cache)
    first, _ = builder.plan(fused.model, fused.resident)
    second, cached = builder.plan(fused.model, fused.resident)
    assert (second, cached) == (first, True)
    _, cached = PlanBuilder(open_library(), Target((8, 9)), "fp16", cache).plan(fused.model, fused.resident)
    assert not cached
    _, cached = builder.plan(fuse_key(tiny_bundle(tmp_path / "tiny"), 64, 112).model, fused.resident)
    assert not cached
    file = cache.path(first.header.key)
    file.write_bytes(file.read_bytes()[:-100])
    assert builder.plan(fused.model, fused.resident)[1] is False
    assert builder.plan(fused.model, fused.resident)[1] is True


def test_without_the_plugin_the_warp_is_grid_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "none")
    fused = fuse_propagate(tiny_bundle(tmp_path / "tiny"), 64, 96)
    plan, _ = PlanBuilder(open_library(), Target((8, 6)), "fp16").plan(fused.model)
    assert (plan.header.key.warp, plan.header.warps) == ("gridsample", 0)


def test_an_error_about_a_refused_graph_has_tensorrts_reason(tmp_path: Path) -> None:
    fused = fuse_key(tiny_bundle(tmp_path / "tiny"), 64, 96)
    for node in fused.model.graph.node:
        if node.op_type == "Softmax":
            node.op_type = "Det"
            del node.attribute[:]
    with pytest.raises(BackendError, match=r"TensorRT can't read key: Det node_\d+: "):
        PlanBuilder(open_library(), Target((8, 6)), "fp16").plan(fused.model, fused.resident)


def test_quantised_graphs_become_plans() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    quantised (float[1,16,32,32] features) => (float[1,16,32,32] scores)
    <float scale = {0.1}, int8 zero = {0}>
    {
      q = QuantizeLinear (features, scale, zero)
      d = DequantizeLinear (q, scale, zero)
      weight = DequantizeLinear <axis=0> (weight_q, weight_scale, weight_zero)
      scores = Conv <pads=[1,1,1,1]> (d, weight)
    }"""
    model = onnx.parser.parse_model(text)
    weights: dict[str, Any] = {
        "weight_q": np.ones((16, 16, 3, 3), np.int8),
        "weight_scale": np.full(16, 0.01, np.float32),
        "weight_zero": np.zeros(16, np.int8),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    plan, _ = PlanBuilder(open_library(), Target((8, 6)), "fp16").plan(model)
    assert plan.content


def test_the_backend_gets_as_far_as_the_first_call_that_needs_a_gpu(tmp_path: Path) -> None:
    """The plan is built and cached. Then TensorRT finds no driver to load it with."""
    driver = FakeDriver()
    backend = TensorRTBackend(A10, "auto", tmp_path, driver)
    assert (backend.precision, backend.device) == ("fp16", "NVIDIA A10 (GPU 0)")
    fused = fuse_propagate(tiny_bundle(tmp_path / "tiny"), 64, 96)
    with pytest.raises(BackendError, match="TensorRT can't load a plan"):
        backend.compile(fused.model, fused.resident)
    assert len(list((tmp_path / "tensorrt").glob("*.plan"))) == 1
    del backend
    gc.collect()
    driver.assert_nothing_left()


def test_bf16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="not in bf16"):
        TensorRTBackend(A10, "bf16", tmp_path, FakeDriver())


def test_a_missing_driver_is_an_error_that_says_so() -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match="can't load NVIDIA's driver: install it"):
        CudaDriver()


def test_the_plugins_kernel_is_compiled_once_for_its_gpu_and_launched_with_its_arguments() -> None:
    driver = FakeDriver()
    launcher = WarpLauncher(driver, (8, 6))
    stream = driver.open_stream()
    for _ in range(2):
        launcher.launch("nchw", "f16", (1, 1024, 38, 63), (1, 2, 38, 63), (11, 22, 0, 33), stream)
    [(image, name)] = driver.kernels.values()
    assert image.startswith(b"\x7fELF")
    assert name.encode() in image
    arguments = ("keywarp_warp_f16", (11, 22, 0, 33), (1, 1024, 38, 63, 38, 63))
    assert driver.launches == [arguments, arguments]


@pytest.mark.parametrize(("layout", "kernel"), [("LINEAR", "keywarp_warp_f16"), ("HWC8", "keywarp_warp_hwc8_f16")])
def test_the_python_plugin_launches_with_the_launcher_that_was_bound_to_it(layout: str, kernel: str) -> None:
    """TensorRT clones a plugin for each context, and passes `enqueue` the descriptions that are imitated here."""
    trt, driver = open_library().module, FakeDriver()
    stream = driver.open_stream()

    def desc(shape: tuple[int, ...], form: str = layout) -> SimpleNamespace:
        return SimpleNamespace(dims=shape, type=trt.float16, format=getattr(trt.TensorFormat, form))

    features, flow = desc((1, 24, 38, 63)), desc((1, 2, 38, 63), "LINEAR")
    creator = plugin_creator(trt)
    with launching_with(WarpLauncher(driver, (8, 6))):
        plugin = creator.create_plugin("", trt.PluginFieldCollection([]), None).attach_to_context(None)
    plugin.enqueue([features, flow, features], [features], [11, 22, 33], [44], 0, stream)
    plugin.enqueue([features, flow], [features], [11, 22], [44], 0, stream)
    numbers = (1, 24, 38, 63, 38, 63)
    assert driver.launches == [(kernel, (11, 22, 33, 44), numbers), (kernel, (11, 22, 0, 44), numbers)]
    unbound = creator.create_plugin("", trt.PluginFieldCollection([]), None)
    with pytest.raises(RuntimeError, match="can't run"):
        unbound.enqueue([features, flow], [features], [11, 22], [44], 0, stream)


def test_held_tensors_stay_on_the_device_in_half_precision(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", held=True, image={"fit": "letterbox", "height": 64, "width": 96})
    builder = PlanBuilder(open_library(), Target((8, 6)), "fp16")
    key, warp = fuse_key(bundle, 64, 96), fuse_warp(bundle, 64, 96)
    assert key.resident == {"features", "held"}
    for fused, warps in ((key, 0), (warp, 1)):
        plan, _ = builder.plan(fused.model, fused.resident)
        assert plan.header.warps == warps
    given, taken = to_half(simplify(key.model), key.resident), to_half(simplify(warp.model), warp.resident)
    half = {value.name: value.type.tensor_type.elem_type for value in (*given.graph.output, *taken.graph.input)}
    assert half["held"] == half["features"] == onnx.TensorProto.FLOAT16
    assert half["labels"] == onnx.TensorProto.UINT8
