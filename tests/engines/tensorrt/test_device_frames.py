"""Streams of frames that a decoder left on a fake device: the same results as those of the same frames on the host."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import AdaptiveInterval, Engine, FixedInterval, StreamSession
from keywarp.engines import engine as engine_module
from keywarp.engines.backends.tensorrt import device_kernels
from keywarp.engines.frames import DeviceFrame, FrameStore
from keywarp.engines.result import FrameResult
from tests.engines.cuda.kernel_shim import KernelDriver, Library
from tests.engines.scenes import scene
from tests.engines.tensorrt.test_last_step import FinishingBackend
from tests.tiny_bundle import tiny_bundle

LETTERBOX: dict[str, Any] = {"height": 64, "width": 96, "fit": "letterbox", "padding": "center", "pad": 114}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> list[Library]:
    return [Library(tmp_path_factory.mktemp(name), name) for name in ("images", "labels")]


@pytest.fixture(autouse=True)
def _without_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_kernels, "compile_kernels", lambda *_: b"")


def keep(driver: KernelDriver, frames: FrameStore, pixels: NDArray[np.uint8]) -> DeviceFrame:
    """Return a frame that was copied from a decoder's surface, whose rows have gaps."""
    height, width = pixels.shape[:2]
    pitch = 3 * width + 41
    surface = driver.allocate(height * pitch)
    driver.memory(surface, height * pitch).reshape(height, pitch)[:, : 3 * width] = pixels.reshape(height, -1)
    kept = frames.keep(surface, pitch, height, width)
    driver.free(surface)  # the decoder overwrites it
    return kept


def same(one: FrameResult, other: FrameResult) -> None:
    """Check that two results are the same."""
    assert (one.kind, one.key_age, one.reliability, one.motion) == (
        other.kind,
        other.key_age,
        other.reliability,
        other.motion,
    )
    np.testing.assert_array_equal(one.labels, other.labels)
    for left, right in ((one.flow, other.flow), (one.reliability_map, other.reliability_map)):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("motion", ["network", "network-repaired", "network-chained", "dis", "dis-chained", "none"])
@pytest.mark.parametrize("image", [None, LETTERBOX], ids=["whole", "padded"])
def test_frames_on_the_device_have_the_results_of_frames_on_the_host(
    motion: str, image: dict[str, Any] | None, libraries: list[Library], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = KernelDriver(*libraries)
    monkeypatch.setattr(engine_module, "open_backend", lambda *_, **__: FinishingBackend(driver))
    engine = Engine(tiny_bundle(tmp_path / "tiny", motion_gain=0.02, flow=(0.3, -0.6), image=image), motion=motion)  # type: ignore[arg-type]
    assert engine.frames
    on_host, on_device = (StreamSession(engine, FixedInterval(4)) for _ in range(2))
    for number in range(7):
        pixels = scene(number, 75, 130)
        expected = on_host.process(pixels)
        same(on_device.process(keep(driver, engine.frames, pixels)), expected)
    on_host.close()
    on_device.close()
    engine.close()
    del engine, on_host, on_device
    gc.collect()
    driver.assert_nothing_left()


def test_only_small_images_come_to_the_host_unless_all_pixels_are_asked_for(
    libraries: list[Library], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = KernelDriver(*libraries)
    downloads: list[int] = []
    download = driver.download

    def count(target: NDArray[Any], address: int, stream: int) -> None:
        downloads.append(target.nbytes)
        download(target, address, stream)

    monkeypatch.setattr(driver, "download", count)
    monkeypatch.setattr(engine_module, "open_backend", lambda *_, **__: FinishingBackend(driver))
    engine = Engine(tiny_bundle(tmp_path / "tiny"), motion="network")
    assert engine.frames
    session = StreamSession(engine, FixedInterval(3))
    frames = [keep(driver, engine.frames, scene(number, 128, 192)) for number in range(3)]
    for frame in frames:
        session.process(frame)
    small, labels, flow = 32 * 48 * 3, 64 * 96, 2 * 4 * 6 * 4
    assert sorted(downloads) == sorted([small, labels] * 3 + [flow] * 2)
    downloads.clear()
    np.testing.assert_array_equal(np.asarray(frames[1]), scene(1, 128, 192))
    np.testing.assert_array_equal(np.asarray(frames[1]), scene(1, 128, 192))
    assert downloads == [128 * 192 * 3]
    assert not np.asarray(frames[1]).flags.writeable


def test_the_adaptive_schedule_and_overlapped_key_frames_take_frames_on_the_device(
    libraries: list[Library], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = KernelDriver(*libraries)
    monkeypatch.setattr(engine_module, "open_backend", lambda *_, **__: FinishingBackend(driver))
    engine = Engine(tiny_bundle(tmp_path / "tiny", motion_gain=0.02))
    assert engine.frames
    on_host, on_device = (StreamSession(engine, AdaptiveInterval(target=2), overlap=2) for _ in range(2))
    for number in range(8):
        pixels = scene(number, 64, 96)
        expected, found = on_host.process(pixels), on_device.process(keep(driver, engine.frames, pixels))
        assert (found.change, found.reason) == (expected.change, expected.reason)
        same(found, expected)
