"""The kernels that label pixels, compiled for the CPU: the same labels as the host's, without exception."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines.backends.tensorrt import device_kernels
from keywarp.engines.backends.tensorrt.device_labels import KERNELS, DeviceLabeller
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.cuda import kernels
from keywarp.engines.labels import Labeller
from tests.engines.cuda.kernel_shim import KernelDriver, Library
from tests.engines.cuda.mutants import LABEL_MUTANTS, Mutant

SHAPES = [
    (19, 60, 100, 16),
    (2, 64, 96, 8),
    (3, 61, 97, 8),
    (5, 7, 9, 2),
    (256, 32, 64, 32),
    (4, 16, 200, 16),
    (3, 5, 5, 8),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("labels"), "labels")


@pytest.fixture(autouse=True)
def _without_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_kernels, "compile_kernels", lambda *_: b"")


def label(shim: Library, scores: NDArray[np.float32], stride: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return the labels that the kernels give, (N, height, width)."""
    driver = KernelDriver(shim)
    memory, stream = DeviceMemory(driver), driver.open_stream()
    labeller = DeviceLabeller(driver, memory, (8, 6), scores.shape, stride, height, width)
    source, result = memory.buffer(scores.nbytes), memory.buffer(len(scores) * height * width)
    driver.memory(source.address, source.size)[:] = scores.view(np.uint8).reshape(-1)
    labeller.enqueue([source.address], result.address, stream)
    driver.synchronize(stream)
    return driver.memory(result.address, result.size).reshape(-1, height, width).copy()


def random_scores(seed: int, classes: int, height: int, width: int, stride: int) -> NDArray[np.float32]:
    """Return two images' scores: noise, or in areas as in a picture; every third time with ties."""
    rng = np.random.default_rng(seed)
    cells = -(-height // stride), -(-width // stride)
    scores = rng.standard_normal((2, classes, *cells)).astype(np.float32)
    if seed % 2:
        scores = np.array([[cv2.GaussianBlur(plane, (0, 0), 2) for plane in image] for image in scores], np.float32)
    return scores if seed % 3 else (np.round(scores * 2) / 2).astype(np.float32)


def differences(shim: Library, seeds: range) -> int:
    """Return the number of labels that differ from the host's."""
    different = 0
    for classes, height, width, stride in SHAPES:
        labeller = Labeller(height, width, stride)
        for seed in seeds:
            scores = random_scores(seed, classes, height, width, stride)
            wanted = np.stack([labeller.label(image) for image in scores])
            different += int(np.count_nonzero(label(shim, scores, stride, height, width) != wanted))
    return different


def test_labels_are_exactly_the_hosts_ties_included(shim: Library) -> None:
    assert differences(shim, range(6)) == 0


def test_labels_of_scores_that_are_no_numbers_are_the_hosts(shim: Library) -> None:
    for seed in range(6):
        scores = random_scores(seed, 4, 40, 56, 8)
        flat = scores.reshape(-1)
        flat[np.random.default_rng(seed).choice(flat.size, 12, replace=False)] = [np.nan, np.inf, -np.inf, 3e38] * 3
        with np.errstate(all="ignore"):
            wanted = np.stack([Labeller(40, 56, 8).label(image) for image in scores])
        np.testing.assert_array_equal(label(shim, scores, 8, 40, 56), wanted)


@pytest.mark.parametrize("mutant", LABEL_MUTANTS, ids=lambda m: m.name)
def test_a_planted_mistake_is_detected(mutant: Mutant, tmp_path: Path) -> None:
    mutated = Library(tmp_path, "labels", mutant)
    try:
        assert differences(mutated, range(4)) > 0
    except AssertionError as error:
        if "writes behind" not in str(error):
            raise


@pytest.mark.gpu_check
def test_the_kernels_compile_for_every_generation_without_spilling() -> None:
    from tests.engines.cuda import nvrtc

    for capability in nvrtc.TARGETS:
        program, found = nvrtc.compile_source(kernels.source("labels"), capability, device_kernels.OPTIONS)
        assert program.startswith(b"\x7fELF")
        assert set(found) == set(KERNELS)
        for name, resources in found.items():
            assert (name, resources.stack, resources.spilled, resources.shared) == (name, 0, 0, 0)
