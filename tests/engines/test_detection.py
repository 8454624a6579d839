"""Detection in streams. The tiny detector finds each red or green cell as a box one pixel wider on each side."""

import locale
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import AVAILABLE, BackendName, Detections, Engine, FixedInterval, FrameKind, StreamSession
from keywarp.engines.detection import DenseDetector
from keywarp.engines.errors import BundleError
from keywarp.engines.manifest import DenseDetection
from tests.tiny_bundle import tiny_bundle

RED, GREEN = 1, 2
COLORS = {RED: (255, 0, 0), GREEN: (0, 255, 0)}


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> BackendName:
    name: BackendName = request.param
    return name


def frame(cells: dict[tuple[int, int], int], height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """Make a black frame with some cells (row, column) of 16x16 pixels in the colour of a class."""
    image = np.zeros((height, width, 3), np.uint8)
    for (row, column), class_id in cells.items():
        image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = COLORS[class_id]
    return image


def found(detections: Detections) -> dict[tuple[float, ...], int]:
    assert len(detections.xyxy) == len(detections.confidence) == len(detections.class_id)
    return {tuple(box.tolist()): int(i) for box, i in zip(detections.xyxy, detections.class_id, strict=True)}


def test_objects_are_found_on_key_frames_and_move_with_the_flow(backend: BackendName, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", detection=True, flow=(-1.0, 0.0))  # one cell to the right per frame
    session = StreamSession(Engine(bundle, backend, "fp32", cache=tmp_path / "cache"), FixedInterval(10))
    key = session.process(frame({(1, 2): RED, (3, 4): GREEN}))
    assert key.kind is FrameKind.KEY
    assert found(key.detections) == {(31, 15, 49, 33): RED, (63, 47, 81, 64): GREEN}  # clipped to the frame
    moved = session.process(frame({}))
    assert moved.kind is FrameKind.PROPAGATED
    assert found(moved.detections) == {(47, 15, 65, 33): RED, (79, 47, 96, 64): GREEN}


def test_boxes_are_in_pixels_of_the_frame_not_of_the_networks_input(tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "tiny", detection=True), precision="fp32", cache=tmp_path / "cache")
    image = frame({(1, 2): RED}).repeat(2, axis=0).repeat(2, axis=1)  # the network sees it at 64 pixels high
    result = StreamSession(engine).process(image)
    assert (result.height, result.width) == (128, 192)
    assert found(result.detections) == {(62, 30, 98, 66): RED}


def test_masks_and_keypoints_move_with_their_objects(backend: BackendName, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny", instances=True, flow=(-1.0, 0.0))  # one cell to the right per frame
    session = StreamSession(Engine(bundle, backend, "fp32", cache=tmp_path / "cache"), FixedInterval(10))
    for left in (32, 48):
        objects = session.process(frame({(1, 2): RED})).detections
        assert objects.masks is not None
        assert objects.keypoints is not None
        assert (objects.masks.height, objects.masks.width) == (64, 96)
        [mask] = objects.masks.whole()
        outside = np.ones((64, 96), np.bool_)
        outside[15:33, left - 1 : left + 17] = False
        assert not mask[outside].any()
        cells = mask[19:31:9, left + 3 : left + 15 : 9]  # the middles of the mask's cells
        assert cells.tolist() == [[True, True], [True, False]]
        assert objects.keypoints.tolist() == [[[left, 16, 1], [left + 8, 32, 0.5]]]


def test_masks_and_keypoints_are_mapped_back_from_a_letterbox(tmp_path: Path) -> None:
    letterbox = {"fit": "letterbox", "height": 96, "width": 128, "pad": 0}
    bundle = tiny_bundle(tmp_path / "tiny", instances=True, image=letterbox)
    engine = Engine(bundle, precision="fp32", cache=tmp_path / "cache")
    image = frame({(0, 0): RED}, 32, 128).repeat(2, axis=0).repeat(2, axis=1)  # fills 32 of 96 rows
    objects = engine.key(image)[0].detections
    [box], masks, points = objects.xyxy, objects.masks, objects.keypoints
    assert masks is not None
    assert points is not None
    assert (masks.height, masks.width) == (32, 128)
    assert box.tolist() == [0, 0, 34, 34]  # 17 pixels of the input, without those in the padding
    assert masks.corners.tolist() == [[0, 0]]
    assert masks.windows[0].shape == (17, 17)
    assert points[0, 0].tolist() == [0, 0, 1]
    assert points[0, 1].tolist() == [16, 32, 0.5]


def test_a_frame_without_objects_gives_empty_arrays(tmp_path: Path) -> None:
    engine = Engine(tiny_bundle(tmp_path / "tiny", detection=True), precision="fp32", cache=tmp_path / "cache")
    nothing = StreamSession(engine).process(frame({})).detections
    assert nothing.xyxy.shape == (0, 4)
    assert nothing.confidence.shape == nothing.class_id.shape == (0,)


def test_a_result_of_one_task_cannot_be_read_as_one_of_the_other(tmp_path: Path) -> None:
    detector = Engine(tiny_bundle(tmp_path / "d", detection=True), precision="fp32", cache=tmp_path / "cache")
    segmenter = Engine(tiny_bundle(tmp_path / "s"), precision="fp32", cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="no labels"):
        _ = StreamSession(detector).process(frame({})).labels
    with pytest.raises(ValueError, match="no detections"):
        _ = StreamSession(segmenter).process(frame({})).detections


def test_streams_of_several_sizes_share_an_engine_from_several_threads(backend: BackendName, tmp_path: Path) -> None:
    """Outputs are read from the runtime's own memory, which another stream's frame must not overwrite meanwhile."""
    bundle = tiny_bundle(tmp_path / "tiny", detection=True, motion_gain=0.02)
    random = np.random.default_rng(0)
    videos = []
    for columns in (4, 5, 6, 8, 4, 5, 6, 8):
        cells = random.integers(0, 256, (20, 4, columns, 3), np.uint8)
        videos.append(cells.repeat(16, axis=1).repeat(16, axis=2))

    def detect(engine: Engine, video: NDArray[np.uint8]) -> list[dict[tuple[float, ...], int]]:
        session = StreamSession(engine, FixedInterval(3))
        return [found(session.process(frame).detections) for frame in video]

    alone, shared = (Engine(bundle, backend, "fp32", threads=1, cache=tmp_path / "cache") for _ in range(2))
    expected = [detect(alone, video) for video in videos]
    encoding = locale.getencoding()
    with ThreadPoolExecutor(len(videos)) as threads:
        assert list(threads.map(lambda video: detect(shared, video), videos)) == expected
    assert locale.getencoding() == encoding  # OpenVINO changes it temporarily


def test_scores_that_are_not_probabilities_are_refused() -> None:
    detector = DenseDetector(DenseDetection(), 3, 64, 96)
    with pytest.raises(BundleError, match="check whether the graph lacks the softmax"):
        detector.detect({"boxes": np.zeros((1, 2, 4), np.float32), "scores": np.full((1, 2, 3), 12.8, np.float32)})


def test_lists_of_different_lengths_are_refused() -> None:
    detector = DenseDetector(DenseDetection(), 3, 64, 96)
    with pytest.raises(BundleError, match="should give scores"):
        detector.detect({"boxes": np.zeros((1, 10, 4), np.float32), "scores": np.zeros((1, 12, 3), np.float32)})
