"""Frames are fitted into an input of exact size, stretched or letterboxed, and results are mapped back to them."""

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from keywarp.engines import (
    AVAILABLE,
    Detections,
    Engine,
    FixedInterval,
    FrameResult,
    MotionName,
    MotionVectors,
    StreamSession,
)
from keywarp.engines.detection import DenseDetector
from keywarp.engines.manifest import DenseDetection, ImagePreparation
from keywarp.engines.placement import Placement
from keywarp.engines.preparation import input_size, place
from tests.tiny_bundle import tiny_bundle

HEIGHT, WIDTH = 96, 128
SIZES = [(96, 128), (48, 64), (200, 90), (90, 320), (61, 103), (333, 37), (7, 500), (1, 1), (720, 1280)]
Frame = NDArray[np.uint8]


def fitted(fit: str, padding: str = "center", height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    return {"fit": fit, "height": height, "width": width} | ({"padding": padding} if fit == "letterbox" else {})


def patches(height: int, width: int, seed: int = 0) -> Frame:
    """Return a frame of black, red and green patches."""
    random = np.random.default_rng(seed)
    colors = np.array([[0, 0, 0], [230, 20, 10], [10, 220, 20]], np.uint8)
    few = colors[random.integers(0, 3, (5, 7))]
    return np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def textured(height: int, width: int) -> Frame:
    random = np.random.default_rng(1)
    rough = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def letterboxed(frame: Frame, padding: str) -> tuple[Frame, int, int, int, int]:
    """Letterbox a frame, as a script that runs the network without Keywarp would; return where it lies, too."""
    height, width = frame.shape[:2]
    scale = min(HEIGHT / height, WIDTH / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = ((HEIGHT - rows) // 2, (WIDTH - columns) // 2) if padding == "center" else (0, 0)
    canvas = np.full((HEIGHT, WIDTH, 3), 114, np.uint8)
    canvas[top : top + rows, left : left + columns] = cv2.resize(frame, (columns, rows)).reshape(rows, columns, 3)
    return canvas, top, left, rows, columns


def run_by_hand(folder: Path, picture: Frame) -> dict[str, NDArray[np.float32]]:
    """Run a bundle's feature network and head one after the other."""
    values = {"image": (picture.astype(np.float32) - 100).transpose(2, 0, 1)[np.newaxis]}
    for name in ("features", "head"):
        session = ort.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        inputs = {i.name: values[i.name] for i in session.get_inputs()}
        values |= dict(zip(names, session.run(None, inputs), strict=True))
    return values


@pytest.mark.parametrize("padding", ["center", "end"])
@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_those_of_the_network_on_the_letterboxed_picture(
    tmp_path: Path, size: tuple[int, int], padding: Literal["center", "end"]
) -> None:
    height, width = size
    bundle = tiny_bundle(tmp_path / "tiny", detection=True, image=fitted("letterbox", padding))
    frame = patches(*size)
    picture, top, left, rows, columns = letterboxed(frame, padding)
    detector = DenseDetector(DenseDetection(threshold=0.6, iou=0.5), 3, HEIGHT, WIDTH)
    expected = detector.detect(run_by_hand(bundle.path, picture))
    factors = np.array([width / columns, height / rows] * 2)
    boxes = np.clip((expected.xyxy - [left, top] * 2) * factors, 0, [width, height] * 2)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    found = Engine(bundle, "onnxruntime", cache=tmp_path).key(frame)[0].detections
    np.testing.assert_allclose(found.xyxy, boxes[inside], atol=1e-3 * max(size))
    np.testing.assert_array_equal(found.class_id, expected.class_id[inside])
    np.testing.assert_allclose(found.confidence, expected.confidence[inside], atol=1e-5)


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("size", SIZES)
def test_labels_cover_the_frame_without_padding(tmp_path: Path, size: tuple[int, int], backend: Any) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", image=fitted("letterbox"))
    frame = np.full((*size, 3), (230, 20, 10), np.uint8)
    session = StreamSession(Engine(bundle, backend, "fp32", cache=tmp_path, motion="dis"), FixedInterval(2))
    _, _, _, rows, columns = letterboxed(frame, "center")
    for _ in range(2):
        labels = session.process(frame).labels
        assert labels.shape == (rows, columns)
        whole_cells = min(rows, columns) >= 32
        assert not whole_cells or (labels == 1).mean() > 0.8


def test_stretched_frames_fill_the_input(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", detection=True, image=fitted("stretch"))
    frame = np.zeros((50, 300, 3), np.uint8)
    frame[:, 150:, 0] = 230  # the right half is red
    engine = Engine(bundle, "onnxruntime", cache=tmp_path, motion="dis")
    found = engine.key(frame)[0].detections
    assert found.xyxy[:, 0].min() == pytest.approx((64 - 1) * 300 / 128)
    assert (found.xyxy.max(axis=0) == [300 if i % 2 == 0 else 50 for i in range(4)])[2:].all()


def test_all_frame_sizes_share_the_compiled_graphs(tmp_path: Path) -> None:
    engine = Engine(
        tiny_bundle(tmp_path / "tiny", image=fitted("letterbox")), "onnxruntime", cache=tmp_path, max_sizes=1
    )
    for size in SIZES:
        engine.prepare(*size)
        session = StreamSession(engine, FixedInterval(3))
        results = [session.process(patches(*size)) for _ in range(2)]
        assert [r.kind.value for r in results] == ["key", "propagated"]
        assert (results[0].height, results[0].width) == size
    assert len(engine._programs) == 1


SOURCES: list[MotionName] = ["dis", "dis-chained-repaired", "codec", "codec-repaired", "network", "none+scale"]
SOURCES += ["network-chained", "network-repaired"]


def moved(frame: Frame, pixels: int) -> Frame:
    return np.roll(frame, pixels, axis=1)


def vectors(height: int, width: int, pixels: int) -> MotionVectors:
    ys, xs = np.mgrid[: height // 8, : width // 8].reshape(2, -1) * 8
    corners = np.stack([xs, ys], axis=1).astype(np.int16)
    count = len(corners)
    displacements = np.tile(np.array([-pixels, 0], np.float32), (count, 1))
    return MotionVectors(
        width, height, "P", corners, np.full((count, 2), 8, np.int16), displacements, np.zeros(count, np.bool_)
    )


def stream(bundle_folder: Path, image: dict[str, Any] | None, motion: MotionName, **sides: int) -> list[FrameResult]:
    """Process frames of 64 x 128 pixels in which everything moves to the right."""
    bundle = tiny_bundle(bundle_folder, image=image, detection=True, **sides)  # type: ignore[arg-type]
    engine = Engine(bundle, "onnxruntime", cache=bundle_folder, motion=motion, keep_features=True)
    session = StreamSession(engine, FixedInterval(4))
    frame = np.asarray(cv2.addWeighted(textured(64, 128), 0.3, patches(64, 128), 0.7, 0), np.uint8)
    return [session.process(moved(frame, 3 * n), vectors=[vectors(64, 128, 3)]) for n in range(4)]


@pytest.mark.parametrize("motion", SOURCES)
@pytest.mark.parametrize("padding", ["center", "end"])
def test_padding_of_whole_cells_changes_nothing(tmp_path: Path, motion: MotionName, padding: str) -> None:
    """These networks see no further than a cell, so that a letterbox gives what its picture gives alone."""
    alone = stream(tmp_path / "alone", None, motion, short_side=64, long_side=128)
    boxed = stream(tmp_path / "boxed", fitted("letterbox", padding), motion)
    for one, other in zip(alone, boxed, strict=True):
        np.testing.assert_allclose(one.detections.xyxy, other.detections.xyxy, atol=1e-4)
        np.testing.assert_array_equal(one.detections.class_id, other.detections.class_id)
        assert one.motion == other.motion
        assert one.reliability == pytest.approx(other.reliability, abs=1e-6)
        assert one.features is not None
        assert other.features is not None
        np.testing.assert_allclose(one.features[0], other.features[0], atol=1e-3)
        if one.kind.value == "propagated":
            assert one.flow is not None
            assert other.flow is not None
            assert one.reliability_map is not None
            assert other.reliability_map is not None
            np.testing.assert_allclose(one.flow, other.flow, atol=1e-5)
            np.testing.assert_allclose(one.reliability_map, other.reliability_map, atol=1e-5)


@pytest.mark.parametrize("motion", ["dis-chained", "codec"])
def test_motion_is_that_of_the_frame_if_padding_ends_within_a_cell(tmp_path: Path, motion: MotionName) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", image=fitted("letterbox", height=320, width=320))
    session = StreamSession(Engine(bundle, "onnxruntime", cache=tmp_path, motion=motion), FixedInterval(9))
    frame = textured(180, 320)  # 70 pixels of padding above
    for number in range(4):
        result = session.process(moved(frame, 4 * number), vectors=[vectors(176, 320, 4)])
    assert result.motion == motion
    assert result.flow is not None
    assert result.flow.shape == (2, 12, 20)
    np.testing.assert_allclose(result.flow[0, 1:-1, 2:-2], -12 / 16, atol=0.1)
    np.testing.assert_allclose(result.flow[1, 1:-1, 2:-2], 0, atol=0.1)
    assert result.reliability_map is not None
    assert result.reliability_map.shape == (12, 20)
    assert result.reliability_map[:, 2:-2].min() > 0.7


def test_unreliable_cells_are_where_the_frame_changed(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", image=fitted("letterbox", height=320, width=320))
    engine = Engine(bundle, "onnxruntime", cache=tmp_path, motion="none+scale")
    frame = textured(180, 320)
    _, key = engine.key(frame)
    changed = frame.copy()
    changed[144:180, 256:] = 255 - changed[144:180, 256:]
    cells = engine.propagate(changed, key).reliability_map
    assert cells is not None
    assert cells[10:, 17:].max() < 0.6
    assert cells[:7, :].min() == 1
    assert cells[:, :14].min() == 1


def test_flow_in_padding_goes_along_its_border() -> None:
    placement = Placement(96, 128, 32, 0, 32, 128)
    flow = np.stack([np.full((2, 8), -0.5, np.float32), np.full((2, 8), 0.25, np.float32)])[np.newaxis]
    whole = placement.spread(flow, 16)
    assert whole.shape == (1, 2, 6, 8)
    assert (whole[0, 0] == -0.5).all()
    assert (whole[0, 1, 2:4] == 0.25).all()
    assert (whole[0, 1, :2] == 0).all()
    assert (whole[0, 1, 4:] == 0).all()


def test_motion_sees_the_border_repeated_up_to_whole_cells() -> None:
    placement = Placement(100, 60, 23, 0, 50, 60)  # rows 16 to 80 of cells of 16 pixels
    picture = textured(56, 64)[:50, :60]
    edge = ((7, 7), (0, 0), (0, 0))
    np.testing.assert_array_equal(placement.cover(picture, 16), np.pad(picture, edge, mode="edge"))
    whole = ((23, 27), (0, 0), (0, 0))
    np.testing.assert_array_equal(placement.cover(picture), np.pad(picture, whole, mode="edge"))


def test_values_of_cells_are_given_for_the_frame() -> None:
    placement = Placement(320, 320, 70, 0, 180, 320)  # begins 6 pixels below the border of a cell
    ramp = np.tile(np.arange(12, dtype=np.float32)[:, np.newaxis], (1, 20))
    aligned = placement.align(np.stack([ramp, -ramp]), 16)
    assert aligned.shape == (2, 12, 20)
    np.testing.assert_allclose(aligned[0, :-1, 3], np.arange(11) + 6 / 16, atol=0.05)  # OpenCV counts in 1/32
    np.testing.assert_array_equal(aligned[1], -aligned[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", ["center", "end"])
def test_the_picture_lies_within_the_input(size: tuple[int, int], padding: Literal["center", "end"]) -> None:
    image = ImagePreparation(fit="letterbox", height=HEIGHT, width=WIDTH, padding=padding)
    found = place(*size, image)
    assert found.size == (HEIGHT, WIDTH) == input_size(*size, image)
    assert 1 <= found.rows <= HEIGHT
    assert 1 <= found.columns <= WIDTH
    assert found.rows == HEIGHT or found.columns == WIDTH or size == (1, 1)
    if padding == "end":
        assert (found.top, found.left) == (0, 0)
    assert found.top + found.rows <= HEIGHT
    assert found.left + found.columns <= WIDTH
    picture = np.zeros((found.rows, found.columns, 3), np.uint8)
    assert found.pad(picture, 114).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fit": "letterbox", "height": 64}, "the fit letterbox needs width"),
        ({"fit": "stretch", "height": 64, "width": 64, "short_side": 64}, "the fit stretch has no short_side"),
        ({"fit": "stretch", "height": 64, "width": 64, "multiple": 32}, "the fit stretch has no multiple"),
        ({"height": 64, "width": 64}, "the fit resize needs short_side"),
        ({"short_side": 64, "long_side": 64, "width": 64}, "the fit resize has no width"),
    ],
)
def test_settings_of_another_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImagePreparation(**fields)


def test_detections_stay_within_the_frame(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", detection=True, image=fitted("letterbox") | {"pad": 0})
    frame = np.full((61, 103, 3), (230, 20, 10), np.uint8)
    output = Engine(bundle, "onnxruntime", cache=tmp_path).key(frame)[0].output
    assert isinstance(output, Detections)
    assert len(output.xyxy)
    assert output.xyxy.min() == 0
    assert (output.xyxy[:, 2:] <= [103, 61]).all()
    assert (output.xyxy[:, 2:] > output.xyxy[:, :2]).all()
