"""Streams whose last step runs on a fake device, by the kernels themselves, compiled for the CPU."""

import gc
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from keywarp.client import open_source
from keywarp.commands.sample_video import sample_video
from keywarp.engines import BundleError, Engine, FixedInterval, StreamSession
from keywarp.engines import engine as engine_module
from keywarp.engines.backends.half import to_half
from keywarp.engines.backends.tensorrt import device_kernels
from keywarp.engines.backends.tensorrt.device_frames import DeviceFrames
from keywarp.engines.backends.tensorrt.device_last_step import FinishedExecutable
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.backends.tensorrt.program import Executable, TensorRTProgram
from keywarp.engines.backends.warping import simplify
from keywarp.engines.bundle import Bundle, write_bundle
from keywarp.engines.fusion import GraphStyle, fuse_key
from keywarp.engines.last_step import OBJECTS, cut_last_step
from keywarp.engines.manifest import RegionDetection
from keywarp.engines.result import FrameResult
from tests.engines.cuda.kernel_shim import KernelDriver, Library
from tests.engines.cuda.test_detection import BOXES, CONFIDENCE
from tests.engines.tensorrt.fake_driver import FakeDriver, HostExecutable
from tests.engines.test_fusion import noise
from tests.tiny_bundle import FEATURES, FLOW, WARP, graph_of, tiny_bundle

REGIONS_HEAD = """
head (float[N,3,H,W] features)
  => (float[N,H,W,A] objectness, float[N,H,W,B] anchor_deltas, float[N,H,W,C] class_maps, float[N,H,W,D] box_maps)
{
  likely = Conv (features, objectness_weight)
  objectness = Transpose <perm=[0,2,3,1]> (likely)
  moved = Conv (features, anchor_deltas_weight)
  anchor_deltas = Transpose <perm=[0,2,3,1]> (moved)
  classes = Conv (features, class_maps_weight)
  class_maps = Transpose <perm=[0,2,3,1]> (classes)
  refined = Conv (features, box_maps_weight)
  box_maps = Transpose <perm=[0,2,3,1]> (refined)
}
"""
SETTINGS = RegionDetection(candidates=300, proposals=60, pooling=3, anchor_scales=(2.0, 4.0), limit=40)


def regions_bundle(path: Path, settings: RegionDetection = SETTINGS, classes: int = 3, **wrong: int) -> Bundle:
    """Write a bundle with an R-FCN head whose weights are random. Its features are the mean colours of cells."""
    rng = np.random.default_rng(0)
    anchors, bins = len(settings.anchor_ratios) * len(settings.anchor_scales), settings.pooling**2
    sizes = {"objectness": anchors, "anchor_deltas": 4 * anchors, "class_maps": bins * classes, "box_maps": 4 * bins}
    scales = {"objectness": 0.01, "anchor_deltas": 0.003, "class_maps": 0.1, "box_maps": 0.02}
    weights = {
        f"{name}_weight": rng.normal(0, scales[name], (size, 3, 1, 1)) for name, size in {**sizes, **wrong}.items()
    }
    zeros = {"flow_weight": np.zeros((2, 6, 1, 1)), "flow_bias": np.array([0.2, -0.1])}
    ones = {"scale_weight": np.zeros((3, 6, 1, 1)), "scale_bias": np.ones(3)}
    return write_bundle(
        path,
        {
            "features.onnx": graph_of(FEATURES),
            "flow.onnx": graph_of(FLOW, **zeros, **ones),
            "warp.onnx": graph_of(WARP),
            "head.onnx": graph_of(REGIONS_HEAD, **weights),
        },
        name="regions",
        version="1.0.0",
        task="detection",
        detection=settings.model_dump(),
        classes=[{"id": n, "name": f"class {n}", "color": (n, n, n)} for n in range(classes)],
        image={"short_side": 96, "long_side": 1024, "multiple": 16, "mean": (100.0, 100.0, 100.0)},
        flow={"downscale": 2},
        features=[{"name": "features", "stride": 16, "channels": 3}],
        key_interval=5,
        opset=17,
        license="Apache-2.0",
    )


class FinishingBackend:
    """The TensorRT backend without TensorRT. Its last steps are the real kernels, on a fake driver's memory."""

    name, device, reason = "tensorrt", "a fake GPU", "a test"
    in_flight = True
    style = GraphStyle(last_step=True)

    def __init__(self, driver: FakeDriver, precision: str = "fp32") -> None:
        self.driver = driver
        self.memory = DeviceMemory(driver)
        self.precision = precision
        self.frames = DeviceFrames(driver, self.memory, (8, 6), 0)

    def compile(self, model: onnx.ModelProto, resident: frozenset[str] = frozenset()) -> TensorRTProgram:
        graph, step = cut_last_step(model)
        simple = simplify(graph)
        half = to_half(simple, resident) if self.precision == "fp16" else simple
        executable: Executable = HostExecutable(half, self.driver)
        if step:
            executable = FinishedExecutable(executable, step, self.driver, self.memory, (8, 6))
        return TensorRTProgram(executable, resident, self.driver, self.memory, model.graph.name)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> list[Library]:
    return [Library(tmp_path_factory.mktemp(name), name) for name in ("detection", "images", "labels")]


@pytest.fixture(autouse=True)
def _without_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_kernels, "compile_kernels", lambda *_: b"")


def street(count: int) -> list[NDArray[np.uint8]]:
    """Return the first frames of a real video, 320x136."""
    with open_source(sample_video()) as source:
        return [np.ascontiguousarray(frame.image[::2, ::2]) for frame in islice(source, count)]


def run(bundle: Bundle, frames: list[NDArray[np.uint8]], backend: str = "auto") -> list[FrameResult]:
    """Return the results of a stream."""
    engine = Engine(bundle, backend)  # type: ignore[arg-type]
    session = StreamSession(engine, FixedInterval(5))
    results = [session.process(frame) for frame in frames]
    session.close()
    engine.close()
    return results


def test_a_streams_objects_are_the_hosts_in_50_frames_of_a_street(
    libraries: list[Library], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, frames, driver = regions_bundle(tmp_path / "regions"), street(50), KernelDriver(*libraries)
    expected = [result.detections for result in run(bundle, frames, "onnxruntime")]
    monkeypatch.setattr(engine_module, "open_backend", lambda *_, **__: FinishingBackend(driver))
    found = [result.detections for result in run(bundle, frames)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.class_id, other.class_id)
        np.testing.assert_allclose(one.xyxy, other.xyxy, rtol=0, atol=BOXES * 272 / 96)  # in pixels of the frame
        np.testing.assert_allclose(one.confidence, other.confidence, rtol=0, atol=CONFIDENCE)
    assert sum(map(len, expected)) > 100
    gc.collect()
    driver.assert_nothing_left()


@pytest.mark.parametrize("height", [64, 50])  # the second one is padded
def test_a_streams_labels_are_exactly_the_hosts(
    height: int, libraries: list[Library], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = {"height": 64, "width": 96, "fit": "letterbox"}
    bundle = tiny_bundle(tmp_path / "tiny", motion_gain=0.02, flow=(0.3, -0.6), image=fit)
    frames, driver = list(noise(6, height, 96)), KernelDriver(*libraries)
    expected = [result.labels for result in run(bundle, frames, "onnxruntime")]
    monkeypatch.setattr(engine_module, "open_backend", lambda *_, **__: FinishingBackend(driver))
    found = [result.labels for result in run(bundle, frames)]
    np.testing.assert_array_equal(found, expected)
    assert np.shape(found[0]) == (height, 96)
    gc.collect()
    driver.assert_nothing_left()


def test_only_the_objects_are_downloaded(libraries: list[Library], tmp_path: Path) -> None:
    driver = KernelDriver(*libraries)
    backend = FinishingBackend(driver, "fp16")
    bundle = regions_bundle(tmp_path / "regions")
    key = fuse_key(bundle, 96, 224, backend.style)
    program = backend.compile(key.model, key.resident)
    pinned = sum(memory.size for memory in driver.pinned.values())
    outputs = program.run({"frame": noise(1, 96, 224)})
    assert outputs.keys() == {OBJECTS, "features"}
    assert isinstance(outputs[OBJECTS], np.ndarray)
    assert pinned == outputs[OBJECTS].nbytes == (1 + SETTINGS.limit) * 6 * 4


def test_objects_of_a_batch_are_those_of_its_images(libraries: list[Library], tmp_path: Path) -> None:
    driver = KernelDriver(*libraries)
    backend = FinishingBackend(driver)
    key = fuse_key(regions_bundle(tmp_path / "regions"), 96, 224, backend.style)
    frames = noise(2, 96, 224)
    alone = backend.compile(key.model, key.resident)
    expected = [np.array(alone.run({"frame": frames[n : n + 1]})[OBJECTS])[0] for n in range(2)]
    batched = onnx.ModelProto()
    batched.CopyFrom(key.model)
    for value in (*batched.graph.input, *batched.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    del batched.graph.value_info[:]
    found = np.asarray(backend.compile(batched, key.resident).run({"frame": frames})[OBJECTS])
    for image, wanted in zip(found, expected, strict=True):
        count = 1 + int(wanted[0, 0])
        assert count > 1
        np.testing.assert_array_equal(image[0, 0], wanted[0, 0])
        np.testing.assert_array_equal(image[1:count], wanted[1:count])


def test_a_head_with_maps_of_another_size_is_refused(libraries: list[Library], tmp_path: Path) -> None:
    backend = FinishingBackend(KernelDriver(*libraries))
    key = fuse_key(regions_bundle(tmp_path / "regions", box_maps=35), 96, 224, backend.style)
    with pytest.raises(BundleError, match=r"head.onnx should give box_maps, float32 \(1, 6, 14, 36\)"):
        backend.compile(key.model, key.resident)


def test_too_many_boxes_stay_with_the_host(tmp_path: Path) -> None:
    many = SETTINGS.model_copy(update={"proposals": 12_000})
    key = fuse_key(regions_bundle(tmp_path / "regions", many), 96, 224, GraphStyle(last_step=True))
    assert {value.name for value in key.model.graph.output} >= {"objectness", "class_maps"}
    assert cut_last_step(key.model)[1] is None
