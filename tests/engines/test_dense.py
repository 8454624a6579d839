"""Models whose result is a number per pixel."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keywarp.engines import BundleError, Engine, FixedInterval, StreamSession, load_bundle
from keywarp.engines.manifest import DenseSettings
from keywarp.engines.placement import Placement
from keywarp.engines.postprocessing import open_postprocessor
from tests.tiny_bundle import tiny_bundle

SIDE = 64  # of a frame, which has 4 x 4 cells


def ramp() -> np.ndarray:
    """Return a frame whose columns of cells are ever more red."""
    frame = np.zeros((SIDE, SIDE, 3), np.uint8)
    frame[..., 0] = (40 * np.arange(4)).repeat(16)
    return frame


def test_key_frame_has_the_heads_values(tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "m", dense=True))
    result, _ = engine.key(ramp())
    assert result.values.dtype == np.float32
    np.testing.assert_allclose(result.values, np.tile(40.0 * np.arange(4) - 100, (4, 1)), atol=1e-3)
    assert engine.bundle.manifest.dense == DenseSettings(stride=16, quantity="redness", unit="steps")


def test_values_move_along_the_flow(tmp_path: Path) -> None:
    """The flow points one cell to the right in the key frame."""
    session = StreamSession(Engine(tiny_bundle(tmp_path / "m", dense=True, flow=(1.0, 0.0))), FixedInterval(10))
    session.process(ramp())
    moved = session.process(ramp())
    np.testing.assert_allclose(moved.values[:, :3], np.tile(40.0 * np.arange(1, 4) - 100, (4, 1)), atol=1e-3)
    assert moved.reliability is not None


def test_copied_values_are_the_key_frames(tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "m", dense=True), motion="none")
    key, state = engine.key(ramp())
    moved = engine.propagate(np.zeros_like(ramp()), state)
    np.testing.assert_array_equal(moved.values, key.values)
    moved.values[:] = 0
    assert key.values.any()


def test_letterboxed_values_cover_the_frame_only(tmp_path: Path) -> None:
    letterbox = {"fit": "letterbox", "height": 64, "width": 64}
    engine = Engine(tiny_bundle(tmp_path / "m", dense=True, image=letterbox))
    frame = ramp()[:32]  # becomes rows 16 to 48 of the input, whole cells
    result, _ = engine.key(frame)
    np.testing.assert_allclose(result.values, np.tile(40.0 * np.arange(4) - 100, (2, 1)), atol=1e-3)


@pytest.mark.parametrize(("top", "rows", "stride"), [(8, 44, 4), (6, 52, 4), (6, 52, 8), (0, 50, 8), (3, 57, 1)])
def test_cells_that_do_not_fit_the_picture_are_resampled(top: int, rows: int, stride: int) -> None:
    """A map that rises by 1 in each pixel of the input, so that its value at a place is known."""
    placement = Placement(64, 64, top, 0, rows, 64)
    centres = (np.arange(64 // stride) + 0.5) * stride
    values = np.repeat(centres[:, np.newaxis], 64 // stride, axis=1).astype(np.float32)
    covering = placement.cover_exactly(values, stride)
    expected = top + (np.arange(len(covering)) + 0.5) * rows / len(covering)
    assert len(covering) == round(rows / stride)
    np.testing.assert_allclose(covering[1:-1, 0], expected[1:-1], atol=stride / 32)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, wrong: float) -> None:
    values = np.zeros((1, 1, 4, 4), np.float32)
    values[0, 0, 1, 2] = wrong
    postprocessor = open_postprocessor(tiny_bundle(tmp_path / "m", dense=True).manifest, SIDE, SIDE)
    with pytest.raises(BundleError, match="1 values of 16 that are infinite or not a number"):
        postprocessor.run({"values": values}, Placement(SIDE, SIDE, 0, 0, SIDE, SIDE), SIDE, SIDE)


def test_values_of_another_stride_are_refused(tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "m", dense={"stride": 8}))
    with pytest.raises(BundleError, match=r"values of shape \(1, 1, 8, 8\), a stride of 8, but they have shape"):
        engine.key(ramp())


def test_results_have_what_the_task_gives(tmp_path: Path) -> None:
    values, _ = Engine(tiny_bundle(tmp_path / "d", dense=True)).key(ramp())
    labels, _ = Engine(tiny_bundle(tmp_path / "s")).key(ramp())
    with pytest.raises(ValueError, match="gives maps, see `values`: its results have no labels"):
        _ = values.labels
    with pytest.raises(ValueError, match="gives maps, see `values`: its results have no detections"):
        _ = values.detections
    with pytest.raises(ValueError, match="labels pixels, see `labels`: its results have no values"):
        _ = labels.values


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema_version": 1}, "the field `dense` needs `schema_version` 2"),
        ({"background": False}, "dense maps have none: leave out the field `background`"),
    ],
)
def test_manifests_that_contradict_themselves_are_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_bundle(tmp_path / "m", **{"dense": True, **fields})


def test_other_tasks_need_classes_and_no_dense_settings(tmp_path: Path) -> None:
    manifest = tiny_bundle(tmp_path / "m").manifest.model_dump()
    for change, message in (
        ({"classes": ()}, "a model for segmentation needs two classes or more, got 0"),
        ({"task": "dense", "classes": ()}, "a model for dense maps needs the field `dense`"),
        ({"dense": {"stride": 4}}, "no other model may have it"),
        ({"task": "dense", "dense": {"stride": 4}}, "has no classes: leave them out, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            type(load_bundle(tmp_path / "m").manifest).model_validate({**manifest, **change})
