"""A detection's last step on the device against the host's, on random maps, and the time of both."""

import statistics
import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.gpu.case import Case, FailedError
from bench.gpu.device_arrays import DeviceArrays
from bench.gpu.graphs import PAPER_SIZE
from keywarp.engines.backends.tensorrt.device_detection import DeviceRegionDetector
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.detection.regions import (
    ANCHOR_DELTAS,
    BOX_MAPS,
    CLASS_MAPS,
    OBJECTNESS,
    RegionDetector,
    map_shapes,
)
from keywarp.engines.last_step import ROW, read_objects
from keywarp.engines.manifest import RegionDetection

CLASSES: Final = 31
BOXES: Final = 1e-3  # pixels, largest difference
CONFIDENCE: Final = 1e-5


SMALL: Final = RegionDetection(candidates=100, proposals=20), (64, 96)


def run(case: Case) -> None:
    """Compare and measure at the paper's size."""
    compare(case, SMALL if case.dry else (RegionDetection(), PAPER_SIZE), 3 if case.dry else 50)


def compare(case: Case, what: tuple[RegionDetection, tuple[int, int]], frames: int) -> None:
    """Compare the objects of some frames.

    Args:
        case: The check that runs.
        what: The settings, and the size of the networks' input.
        frames: The number of frames.

    Raises:
        FailedError: If the objects differ.
    """
    settings, size = what
    driver = case.kernel_driver
    driver.activate()
    memory = DeviceMemory(driver)
    device = DeviceRegionDetector(driver, memory, case.gpu.capability, settings, CLASSES, *size)
    host = RegionDetector(settings, CLASSES, *size)
    total, on_device, on_host = 0, [], []
    start, end = driver.open_event(), driver.open_event()
    for seed in range(frames):
        maps = random_maps(seed, settings, size)
        with DeviceArrays(driver) as arrays:
            blocks = [arrays.filled(values).address for values in maps.values()]
            objects = arrays.poisoned(4 * ROW * (1 + settings.limit))
            driver.record(start, arrays.stream)
            device.enqueue(blocks, objects.address, arrays.stream)
            driver.record(end, arrays.stream)
            content, untouched = arrays.read(objects)
        if not untouched:
            raise FailedError(f"frame {seed}: something is written behind the objects")
        found = read_objects(np.frombuffer(content, np.float32).reshape(-1, ROW))
        on_device.append(1000 * driver.elapsed(start, end))
        began = time.perf_counter()
        expected = host.detect(maps)
        on_host.append(1000 * (time.perf_counter() - began))
        total += len(expected.class_id)
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
    counts = {"objects": total, "frames": len(on_device)}
    case.record(**figures, **counts, summary=text.format(**figures, **counts))


def random_maps(seed: int, settings: RegionDetection, size: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of a head: noise, in which some classes are certain."""
    rng = np.random.default_rng(seed)
    scales = {OBJECTNESS: 1.0, ANCHOR_DELTAS: 0.3, CLASS_MAPS: 8.0, BOX_MAPS: 2.0}
    return {
        name: (scales[name] * rng.standard_normal(shape)).astype(np.float32)
        for name, shape in map_shapes(settings, CLASSES, *size).items()
    }
