"""The fused graphs compute the same as the bundle's graphs one after another, with the steps between written out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import AVAILABLE, BackendName, Engine, FixedInterval, FrameKind, MotionName, StreamSession
from tests.tiny_bundle import tiny_bundle

Array = NDArray[np.float32]
MEAN = np.float32(100)  # the tiny bundle's mean of each channel
STRIDE = 16


class PlainEvaluation:
    """Runs a bundle's graphs on a backend without fusion."""

    def __init__(self, engine: Engine) -> None:
        bundle = engine.bundle
        self._programs = {
            name: engine.backend.compile(bundle.graph(f"{name}.onnx")) for name in ("features", "flow", "warp", "head")
        }

    def key(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        features = self._run("features", "features", image=centred(frame))
        return self._labels(features, frame)

    def propagated(self, frame: NDArray[np.uint8], key: NDArray[np.uint8]) -> NDArray[np.uint8]:
        features = self._run("features", "features", image=centred(key))
        images = {"current": centred(half(frame)), "key": centred(half(key))}
        flow, scale = self._run("flow", "flow", **images), self._run("flow", "scale", **images)
        return self._labels(self._run("warp", "warped", features=features, flow=flow, scale=scale), frame)

    def _labels(self, features: Array, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return upsampled_argmax(self._run("head", "scores", features=features))[: frame.shape[0], : frame.shape[1]]

    def _run(self, name: str, output: str, **inputs: Array) -> Array:
        result = self._programs[name].run(inputs)[output]
        assert isinstance(result, np.ndarray)
        return result


def centred(frame: NDArray[np.uint8]) -> Array:
    return np.ascontiguousarray(frame.transpose(2, 0, 1)[np.newaxis].astype(np.float32) - MEAN)


def half(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average 2x2 pixels and round; cells at the border average fewer pixels."""
    height, width, _ = image.shape
    padded = np.pad(image.astype(np.float64), ((0, height % 2), (0, width % 2), (0, 0)), constant_values=np.nan)
    cells = padded.reshape(-(-height // 2), 2, -(-width // 2), 2, 3)
    averaged: NDArray[np.uint8] = np.floor(np.nanmean(cells, axis=(1, 3)) + 0.5).astype(np.uint8)
    return averaged


def upsampled_argmax(scores: Array) -> NDArray[np.uint8]:
    """Return the argmax over classes after bilinear up-sampling with half-pixel centres, written out."""
    _, _, h, w = scores.shape
    rows = np.clip((np.arange(h * STRIDE) + 0.5) / STRIDE - 0.5, 0, h - 1)
    columns = np.clip((np.arange(w * STRIDE) + 0.5) / STRIDE - 0.5, 0, w - 1)
    top, left = np.minimum(rows.astype(int), h - 2), np.minimum(columns.astype(int), w - 2)
    down = (rows - top)[:, None].astype(np.float32)
    right = (columns - left)[None, :].astype(np.float32)
    maps = scores[0]
    upper = maps[:, top][:, :, left] * (1 - right) + maps[:, top][:, :, left + 1] * right
    lower = maps[:, top + 1][:, :, left] * (1 - right) + maps[:, top + 1][:, :, left + 1] * right
    labels: NDArray[np.uint8] = (upper * (1 - down) + lower * down).argmax(0).astype(np.uint8)
    return labels


def noise(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Make frames of coloured blocks, so that the features of neighbouring cells differ."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (count, -(-height // 8), -(-width // 8), 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width].copy()


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> BackendName:
    name: BackendName = request.param
    return name


def test_interval_one_equals_plain_per_frame_evaluation_exactly(backend: BackendName, tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "tiny"), backend, "fp32", cache=tmp_path / "cache")
    plain, session = PlainEvaluation(engine), StreamSession(engine, FixedInterval(1))
    for frame in noise(5, 64, 96):
        result = session.process(frame)
        assert result.kind is FrameKind.KEY
        np.testing.assert_array_equal(result.labels, plain.key(frame))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (61, 97)])
def test_propagation_equals_running_flow_warp_and_head_separately(
    backend: BackendName, tmp_path: Path, height: int, width: int
) -> None:
    """The motion depends differently on the two frames. Rounding may change the class of a few pixels."""
    bundle = tiny_bundle(
        tmp_path / "tiny", motion_gain=0.02, multiple=1, short_side=height, long_side=width, flow=(0.3, -0.6)
    )
    engine = Engine(bundle, backend, "fp32", cache=tmp_path / "cache")
    plain, session = PlainEvaluation(engine), StreamSession(engine, FixedInterval(10))
    key, *frames = noise(5, height, width)
    session.process(key)
    for frame in frames:
        labels = session.process(frame).labels
        assert labels.shape == (height, width)
        expected = plain.propagated(frame, key)
        assert (labels == expected).mean() > 0.999
        assert (expected != plain.key(key)).any()


@pytest.mark.parametrize("motion", ["network", "dis", "none+scale", "network-repaired"])
@pytest.mark.parametrize("backend", AVAILABLE)
def test_the_head_gets_the_key_frames_held_tensors(tmp_path: Path, backend: BackendName, motion: MotionName) -> None:
    """The held tensor is the whole frame's mean colour, whose effect on the scores is as strong as a cell's own."""
    bundle = tiny_bundle(tmp_path / "tiny", held=True)
    engine = Engine(bundle, backend, "fp32", cache=tmp_path / "cache", motion=motion)
    red, dark = np.full((64, 96, 3), (255, 40, 40), np.uint8), np.full((64, 96, 3), 30, np.uint8)
    bright, key = engine.key(red)
    assert set(key.features) == {"features", "held"}
    assert (bright.labels == 1).all()
    assert (engine.propagate(red, key).labels == 1).all()
    for _, state in (engine.key(dark), engine.key(red)):  # several states live at once
        assert set(state.features) == {"features", "held"}
    sums = np.float32(30 - MEAN) + np.array([255, 40, 40], np.float32) - MEAN  # dark cells under a held red
    _, other = engine.key(dark)
    mixed = engine.propagate(dark, replace(other, features=other.features | {"held": key.features["held"]}))
    expected = int(np.argmax([-sums[0] - sums[1], 2 * sums[0] - sums[1], 2 * sums[1] - sums[0]]))
    assert expected == 1
    assert (mixed.labels == expected).all()
    assert (engine.propagate(dark, other).labels == 0).all()
