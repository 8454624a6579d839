"""A detection's last step on the device against the host's, on random maps, and the time of both."""

import statistics
import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.gpu.case import Case, FailedError
from bench.gpu.device_arrays import DeviceArrays
from bench.gpu.graphs import PAPER_SIZE
from keywarp.engines.backends.tensorrt.device_detection import DeviceRegionDetector
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.backends.tensorrt.driver import Driver
from keywarp.engines.detection.regions import ANCHOR_DELTAS, BOX_MAPS, CLASS_MAPS, OBJECTNESS, RegionDetector
from keywarp.engines.manifest import RegionDetection

CLASSES: Final = 31
BOXES: Final = 1e-3  # pixels, largest difference
CONFIDENCE: Final = 1e-5


def run(case: Case) -> None:
    """Compare and measure.

    Raises:
        FailedError: If the objects differ.
    """
    size = (64, 96) if case.dry else PAPER_SIZE
    settings = RegionDetection(candidates=100, proposals=20) if case.dry else RegionDetection()
    driver = _driver(case)
    driver.activate()
    memory = DeviceMemory(driver)
    device = DeviceRegionDetector(driver, memory, case.gpu.capability, settings, CLASSES, *size)
    host = RegionDetector(settings, CLASSES, *size)
    objects, on_device, on_host = 0, [], []
    start, end = driver.open_event(), driver.open_event()
    for seed in range(3 if case.dry else 50):
        maps = random_maps(seed, settings, size)
        with DeviceArrays(driver) as arrays:
            blocks = {name: arrays.filled(values).address for name, values in maps.items()}
            driver.record(start, arrays.stream)
            device.enqueue(blocks, arrays.stream)
            driver.record(end, arrays.stream)
            found = device.collect(arrays.stream)
        on_device.append(1000 * driver.elapsed(start, end))
        began = time.perf_counter()
        expected = host.detect(maps)
        on_host.append(1000 * (time.perf_counter() - began))
        objects += len(expected.class_id)
        if not np.array_equal(found.class_id, expected.class_id):
            raise FailedError(f"frame {seed}: other classes or another order than on the host")
        pixels = np.abs(found.xyxy - expected.xyxy).max(initial=0)
        certainty = np.abs(found.confidence - expected.confidence).max(initial=0)
        if pixels > BOXES or certainty > CONFIDENCE:
            raise FailedError(f"frame {seed}: boxes differ by {pixels:.2g} pixels, confidences by {certainty:.2g}")
    driver.close_event(start)
    driver.close_event(end)
    figures = {"device_ms": statistics.median(on_device[1:]), "host_ms": statistics.median(on_host[1:])}
    text = "the same {objects} objects in {frames} frames; {device_ms:.2f} ms, on the host {host_ms:.2f} ms"
    counts = {"objects": objects, "frames": len(on_device)}
    case.record(**figures, **counts, summary=text.format(**figures, **counts))


def random_maps(seed: int, settings: RegionDetection, size: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of a head: noise, in which some classes are certain."""
    rng = np.random.default_rng(seed)
    rows, columns = (-(-side // settings.stride) for side in size)
    anchors, bins = len(settings.anchor_ratios) * len(settings.anchor_scales), settings.pooling**2
    channels = {OBJECTNESS: anchors, ANCHOR_DELTAS: 4 * anchors, CLASS_MAPS: bins * CLASSES, BOX_MAPS: bins * 4}
    scales = {OBJECTNESS: 1.0, ANCHOR_DELTAS: 0.3, CLASS_MAPS: 8.0, BOX_MAPS: 2.0}
    return {
        name: (scales[name] * rng.standard_normal((1, rows, columns, count))).astype(np.float32)
        for name, count in channels.items()
    }


def _driver(case: Case) -> Driver:
    """Return the GPU's driver, or a stand-in with these kernels."""
    if not case.dry:
        return case.driver
    from tests.engines.cuda.detection_shim import DetectionDriver, build

    folder: Any = case.folder / "detection"
    folder.mkdir(parents=True, exist_ok=True)
    return DetectionDriver(build(folder))
