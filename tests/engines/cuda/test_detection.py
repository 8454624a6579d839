"""The kernels of a detection's last step, compiled for the CPU, against what the host finds."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.client import open_source
from keywarp.commands.sample_video import sample_video
from keywarp.engines.backends.tensorrt import device_kernels
from keywarp.engines.backends.tensorrt.device_detection import KERNELS, WORD, DeviceRegionDetector
from keywarp.engines.backends.tensorrt.device_memory import Buffer, DeviceMemory
from keywarp.engines.cuda import kernels
from keywarp.engines.detection.regions import (
    ANCHOR_DELTAS,
    BOX_MAPS,
    CLASS_MAPS,
    OBJECTNESS,
    RegionDetector,
    map_shapes,
)
from keywarp.engines.last_step import MOST_BOXES, ROW, read_objects
from keywarp.engines.manifest import RegionDetection
from keywarp.engines.result import Detections
from tests.engines.cuda.kernel_shim import KernelDriver, Library
from tests.engines.cuda.mutants import DETECTION_MUTANTS, Mutant

# Exponentials in double differ by the last bit from library to library, which rounding to float hides nearly always.
BOXES = 1e-4  # pixels
CONFIDENCE = 1e-6
SIZE = (160, 208)
CLASSES = 5
MAPS = OBJECTNESS, ANCHOR_DELTAS, CLASS_MAPS, BOX_MAPS
SETTINGS = RegionDetection(candidates=200, proposals=40, limit=30, pooling=3, anchor_scales=(2.0, 4.0, 8.0))


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("detection"), "detection")


@pytest.fixture(autouse=True)
def _without_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_kernels, "compile_kernels", lambda *_: b"")


def random_maps(seed: int, settings: RegionDetection = SETTINGS, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """Return the outputs of a head: noise, every third time with ties, every tenth with values that aren't finite."""
    rng = np.random.default_rng(seed)
    shapes = map_shapes(settings, CLASSES, *size)
    maps = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    maps[ANCHOR_DELTAS] *= np.float32(0.3)
    maps[BOX_MAPS] *= np.float32(2)
    maps[CLASS_MAPS] *= np.float32(rng.choice([0.5, 2, 8]))
    if seed % 3 == 0:  # ties, whose order must be the same
        maps[OBJECTNESS] = np.round(maps[OBJECTNESS])
        maps[CLASS_MAPS] = np.round(maps[CLASS_MAPS] * 2)
    if seed % 7 == 0:
        maps[OBJECTNESS] *= np.float32(0)  # some are -0, which equals 0
    if seed % 10 == 0:
        for values in maps.values():
            flat = values.reshape(-1)
            flat[rng.choice(flat.size, 8, replace=False)] = [np.nan, np.inf, -np.inf, 1e30, -1e30, -0.0, np.nan, 3e38]
    return maps


class Frames:
    """A detector on the fake device, and one on the host."""

    def __init__(self, shim: Library, settings: RegionDetection = SETTINGS, size: tuple[int, int] = SIZE) -> None:
        self.driver = KernelDriver(shim)
        self.memory = DeviceMemory(self.driver)
        self.device = DeviceRegionDetector(self.driver, self.memory, (8, 6), settings, CLASSES, *size)
        self.host = RegionDetector(settings, CLASSES, *size)
        self.objects = self.memory.buffer(4 * ROW * (1 + settings.limit))
        self.stream = self.driver.open_stream()

    def find(self, maps: dict[str, Any]) -> Detections:
        buffers = {name: self.memory.buffer(values.nbytes) for name, values in maps.items()}
        for name, values in maps.items():
            self.driver.memory(buffers[name].address, values.nbytes)[:] = values.view(np.uint8).reshape(-1)
        self.device.enqueue([buffers[name].address for name in MAPS], self.objects.address, self.stream)
        self.driver.synchronize(self.stream)
        return read_objects(self._floats(self.objects).reshape(-1, ROW))

    def regions(self) -> NDArray[np.float32]:
        return self._floats(self.device.regions).reshape(-1, 4)

    def _floats(self, buffer: Buffer) -> NDArray[np.float32]:
        return self.driver.memory(buffer.address, buffer.size).view(np.float32)

    def compare(self, maps: dict[str, Any]) -> int:
        """Check that both find the same objects in the same order; return their number."""
        found, expected = self.find(maps), self.host.detect(maps)
        regions = self.host.propose(maps[OBJECTNESS], maps[ANCHOR_DELTAS])
        np.testing.assert_allclose(self.regions()[: len(regions)], regions, rtol=0, atol=BOXES)
        assert not self.regions()[len(regions) :].any()
        np.testing.assert_array_equal(found.class_id, expected.class_id)
        np.testing.assert_allclose(found.xyxy, expected.xyxy, rtol=0, atol=BOXES)
        np.testing.assert_allclose(found.confidence, expected.confidence, rtol=0, atol=CONFIDENCE)
        return len(expected.class_id)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_the_device_finds_the_hosts_objects_in_200_random_frames(shim: Library) -> None:
    frames = Frames(shim)
    counts = [frames.compare(random_maps(seed)) for seed in range(200)]
    assert sum(count == 0 for count in counts) < 100
    assert sum(count > 10 for count in counts) > 50


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS.model_copy(update={"candidates": 10_000, "proposals": 100}),  # more than there are
        SETTINGS.model_copy(update={"proposals": 1, "limit": 1}),
        SETTINGS.model_copy(update={"threshold": 0.0, "iou": 0.0}),
        SETTINGS.model_copy(update={"threshold": 1.0}),
        SETTINGS.model_copy(update={"proposal_iou": 1.0, "iou": 1.0}),
        SETTINGS.model_copy(update={"stride": 32, "box_std": (1.0, 1.0, 1.0, 1.0), "pooling": 1}),
    ],
)
def test_settings_mean_the_same_on_the_device(shim: Library, settings: RegionDetection) -> None:
    frames = Frames(shim, settings, (50, 77))
    for seed in range(1, 6):
        frames.compare(random_maps(seed, settings, (50, 77)))


def test_frames_of_nothing_have_no_objects(shim: Library) -> None:
    frames = Frames(shim)
    maps = random_maps(1)
    maps[CLASS_MAPS][:] = 0
    maps[CLASS_MAPS][..., ::CLASSES] = 30  # the background
    assert frames.compare(maps) == 0
    maps[OBJECTNESS][:] = np.nan
    assert len(frames.find(maps).class_id) == 0


def test_the_device_finds_the_hosts_objects_in_50_frames_of_a_street(shim: Library) -> None:
    """The maps are those of an R-FCN whose weights are random, on real frames."""
    torch = pytest.importorskip("torch")
    from keywarp.export.graphs import FeaturePart, HeadPart
    from keywarp.networks import NetworkOptions, build_network

    torch.manual_seed(0)
    options = NetworkOptions(
        classes=CLASSES, task="detection", blocks=(1, 1, 1, 0), channels=32, width=0.25, flow_share=0.25
    )
    network = build_network(options).eval().recognition
    features, head = FeaturePart(network), HeadPart(network)
    with open_source(sample_video()) as source:
        images = [np.ascontiguousarray(frame.image[::2, ::2]) for frame in islice(source, 50)]
    settings = RegionDetection(candidates=1000, proposals=100)
    frames, found = Frames(shim, settings, images[0].shape[:2]), 0
    for image in images:
        with torch.inference_mode():
            batch = torch.from_numpy(image).permute(2, 0, 1)[None].float() - 120
            outputs = head(*features(batch))
        arrays = (np.ascontiguousarray(value.numpy()) for value in outputs)
        maps = dict(zip(network.outputs, arrays, strict=True))
        maps[CLASS_MAPS] *= np.float32(8 / maps[CLASS_MAPS].std())  # so that some are certain
        found += frames.compare(maps)
    assert found > 50


@pytest.mark.parametrize("mutant", DETECTION_MUTANTS, ids=lambda m: m.name)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # buffers are checked when they are freed, too
def test_a_planted_mistake_is_detected(mutant: Mutant, tmp_path: Path) -> None:
    shim = Library(tmp_path, "detection", mutant)
    apart = SETTINGS.model_copy(update={"iou": 0.0, "proposal_iou": 0.0})
    with pytest.raises(AssertionError):
        compare_all([Frames(shim), Frames(shim, apart)])


def compare_all(several: list[Frames]) -> None:
    """Compare some frames by all detectors."""
    for seed in range(40):
        for frames in several:
            frames.compare(random_maps(seed))


@pytest.mark.gpu_check
def test_the_kernels_compile_for_every_generation_without_spilling() -> None:
    from tests.engines.cuda import nvrtc

    for capability in nvrtc.TARGETS:
        program, found = nvrtc.compile_source(kernels.source("detection"), capability, device_kernels.OPTIONS)
        assert program.startswith(b"\x7fELF")
        assert set(found) == set(KERNELS)
        shared = {
            name: 8 * MOST_BOXES // WORD if name in ("keywarp_suppress", "keywarp_select") else 0 for name in KERNELS
        }
        for name, resources in found.items():
            assert (name, resources.spilled, resources.shared) == (name, 0, shared[name])
