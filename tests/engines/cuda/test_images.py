"""The kernels that prepare frames, compiled for the CPU: the same bytes as OpenCV's on the host."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines.backends.tensorrt import device_kernels
from keywarp.engines.backends.tensorrt.device_images import KERNELS, DeviceResizer
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.cuda import kernels
from keywarp.engines.manifest import ImagePreparation
from keywarp.engines.preparation import place, resize
from tests.engines.cuda.kernel_shim import KernelDriver, Library
from tests.engines.cuda.mutants import IMAGE_MUTANTS, Mutant

STRIDE, PADDING = 16, 114
MEAN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
KEPT: dict[str, Any] = {"short_side": 64, "long_side": 200, "multiple": 16}
BOX: dict[str, Any] = {"height": 64, "width": 96, "fit": "letterbox", "padding": "center", "pad": PADDING}
# The frame's size, and how it is fitted.
CASES: list[tuple[tuple[int, int], dict[str, Any]]] = [
    ((108, 192), KEPT),
    ((97, 131), KEPT),
    ((40, 30), KEPT),  # enlarged
    ((64, 96), KEPT),  # as it is
    ((128, 192), KEPT),  # halved
    ((1, 1), KEPT),
    ((90, 160), {**KEPT, "multiple": 1, "short_side": 61}),  # cells that aren't whole
    ((108, 192), BOX),
    ((200, 77), BOX),
    ((128, 180), BOX),
    ((30, 200), BOX),  # a row of cells sees nothing of it
    ((30, 31), {**BOX, "fit": "stretch", "padding": "end"}),
    ((77, 200), {**BOX, "padding": "end"}),
]
DOWNSCALES = (1, 2, 3, 4, 8)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("images"), "images")


@pytest.fixture(autouse=True)
def _without_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_kernels, "compile_kernels", lambda *_: b"")


def shrunk(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Return what the engine averages an image to."""
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
    size = (padded.shape[1] // factor, padded.shape[0] // factor)
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def images(shim: Library, frame: NDArray[np.uint8], fit: dict[str, Any]) -> list[tuple[NDArray[np.uint8], ...]]:
    """Return pairs of what the kernels make of a frame, and what the host makes of it."""
    height, width = frame.shape[:2]
    placement = place(height, width, ImagePreparation.model_validate({**fit, **MEAN}))
    driver = KernelDriver(shim)
    memory, stream = DeviceMemory(driver), driver.open_stream()
    device = DeviceResizer(driver, memory, (8, 6), height, width, placement, PADDING)
    source, image = memory.buffer(frame.nbytes), memory.buffer(3 * placement.height * placement.width)
    driver.memory(source.address, source.size)[:] = frame.reshape(-1)
    device.resize(source.address, image.address, stream)
    found = [(image, placement.size)]
    picture = resize(frame, placement.rows, placement.columns)
    padded = placement.pad(picture, PADDING)
    expected = [padded]
    for downscale in DOWNSCALES:
        size = device.seen_size(downscale)
        found.append((memory.buffer(3 * size[0] * size[1]), size))
        device.shrink_input(image.address, found[-1][0].address, downscale, stream)
        expected.append(shrunk(padded, downscale))
        size = device.small_size(downscale, STRIDE)
        found.append((memory.buffer(3 * size[0] * size[1]), size))
        device.shrink_picture(image.address, found[-1][0].address, downscale, STRIDE, stream)
        expected.append(shrunk(placement.cover(picture, STRIDE), downscale))
    driver.synchronize(stream)
    read = (driver.memory(buffer.address, buffer.size).reshape(*size, 3) for buffer, size in found)
    return list(zip(read, expected, strict=True))


def noise(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("size", "fit"), CASES)
def test_every_byte_is_opencvs(shim: Library, size: tuple[int, int], fit: dict[str, Any]) -> None:
    for found, expected in images(shim, noise(sum(size), *size), fit):
        np.testing.assert_array_equal(found, expected)


def test_black_and_white_stay_black_and_white(shim: Library) -> None:
    for value in (0, 255):
        frame = np.full((97, 131, 3), value, np.uint8)
        assert all((found == value).all() for found, _ in images(shim, frame, KEPT))


@pytest.mark.parametrize("mutant", IMAGE_MUTANTS, ids=lambda m: m.name)
def test_a_planted_mistake_is_detected(mutant: Mutant, tmp_path: Path) -> None:
    mutated = Library(tmp_path, "images", mutant)
    different = [
        not np.array_equal(found, expected)
        for size, fit in CASES
        for found, expected in images(mutated, noise(sum(size), *size), fit)
    ]
    assert any(different)


@pytest.mark.gpu_check
def test_the_kernels_compile_for_every_generation_without_spilling() -> None:
    from tests.engines.cuda import nvrtc

    for capability in nvrtc.TARGETS:
        program, found = nvrtc.compile_source(kernels.source("images"), capability, device_kernels.OPTIONS)
        assert program.startswith(b"\x7fELF")
        assert set(found) == {*KERNELS, "keywarp_pack"}
        for name, resources in found.items():
            assert (name, resources.stack, resources.spilled, resources.shared) == (name, 0, 0, 0)
