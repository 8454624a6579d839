import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO

from keywarp.client import ProcessedFrame
from keywarp.client.exports import CocoWriter, to_mot
from keywarp.protocol import Detection, KeypointsInfo, Region, run_lengths
from tests.client.media import CLASSES, result

PERSON = Detection(class_id=1, name="person", confidence=0.9, xyxy=(1.25, 2.0, 30.5, 47.1))
CAR = Detection(class_id=2, name="car", confidence=0.6, xyxy=(20.0, 10.0, 64.0, 40.0))
LABELS = np.array([[0, 0, 2, 2], [0, 1, 2, 2], [0, 1, 1, 0]], np.uint8)  # of a 64x48 frame


def detected(*objects: Detection, frame: int = 0) -> ProcessedFrame:
    return ProcessedFrame(result(frame).model_copy(update={"detections": objects}))


def segmented(labels: NDArray[np.uint8] = LABELS, frame: int = 0) -> ProcessedFrame:
    return ProcessedFrame(result(frame, labels=labels))


def test_labels_are_enlarged_to_the_frames_resolution() -> None:
    given = segmented()
    assert given.frame_labels.shape == (48, 64)
    np.testing.assert_array_equal(given.frame_labels, LABELS.repeat(16, axis=0).repeat(16, axis=1))
    assert given.frame_labels is given.frame_labels


def test_objects_are_converted_for_supervision() -> None:
    supervision = pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    given = detected(PERSON, CAR).to_supervision()
    assert isinstance(given, supervision.Detections)
    np.testing.assert_allclose(given.xyxy, [PERSON.xyxy, CAR.xyxy])
    np.testing.assert_allclose(given.confidence, [0.9, 0.6])
    assert given.class_id.tolist() == [1, 2]
    assert given.data["class_name"].tolist() == ["person", "car"]
    assert np.isnan(given.data["reliability"]).all()  # of a key frame
    assert len(detected().to_supervision()) == 0
    assert given[given.confidence > 0.7].data["class_name"].tolist() == ["person"]


def test_masks_are_converted_for_supervision() -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    given = segmented().to_supervision()
    assert given.class_id is not None
    assert given.mask is not None
    assert given.class_id.tolist() == [1, 2]
    np.testing.assert_array_equal(given.mask[0], segmented().frame_labels == 1)
    assert given.data["class_name"].tolist() == ["person", "car"]  # type: ignore[union-attr]
    assert len(segmented(np.zeros((3, 4), np.uint8)).to_supervision()) == 0


def test_objects_are_converted_to_coco() -> None:
    assert detected(PERSON, frame=7).to_coco() == [
        {
            "image_id": 7,
            "category_id": 1,
            "bbox": (1.25, 2.0, 29.25, 45.1),
            "area": 1319.17,
            "iscrowd": 0,
            "score": 0.9,
        }
    ]
    assert detected(PERSON).to_coco(image_id=99)[0]["image_id"] == 99


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, of numpy
def test_cocos_own_tools_read_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "coco.json"
    others = np.zeros((3, 4), np.uint8)
    with CocoWriter(path, CLASSES) as file:
        for frame, labels in enumerate((LABELS, others, LABELS[::-1])):
            file.write(segmented(labels, frame))
    coco = COCO(str(path))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["person", "car"]
    assert coco.getImgIds() == [0, 1, 2]
    [annotation] = coco.loadAnns(coco.getAnnIds(imgIds=[2], catIds=[2]))
    expected = segmented(LABELS[::-1]).frame_labels == 2
    np.testing.assert_array_equal(coco.annToMask(annotation), expected)
    assert annotation["area"] == expected.sum()
    assert annotation["bbox"] == [32, 16, 32, 32]
    capsys.readouterr()


def test_a_coco_file_without_frames_is_valid(tmp_path: Path) -> None:
    with CocoWriter(tmp_path / "coco.json", CLASSES):
        pass
    assert json.loads((tmp_path / "coco.json").read_text())["annotations"] == []


def test_tracked_boxes_are_converted_to_motchallenge_with_their_ids() -> None:
    tracked = PERSON.model_copy(update={"track_id": 7})
    assert to_mot(detected(tracked, CAR), tracked=True) == ["1,7,2.25,3,29.25,45.1,0.9,-1,-1,-1"]


def test_track_ids_are_converted_for_supervision() -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    given = detected(PERSON.model_copy(update={"track_id": 7}), CAR).to_supervision()
    assert given.tracker_id is not None
    assert given.tracker_id.tolist() == [7, -1]


def test_boxes_are_converted_to_motchallenge_which_counts_from_one() -> None:
    assert to_mot(detected(PERSON, CAR, frame=4)) == [
        "5,-1,2.25,3,29.25,45.1,0.9,-1,-1,-1",
        "5,-1,21,11,44,30,0.6,-1,-1,-1",
    ]
    with pytest.raises(ValueError, match="boxes"):
        to_mot(segmented())


def test_class_0_is_exported_where_it_has_a_region(tmp_path: Path) -> None:
    given = segmented()
    assert given.result.segmentation is not None
    region = Region(class_id=0, name=CLASSES[0].name, area=0.5)
    regions = (region, *given.result.segmentation.regions)
    segmentation = given.result.segmentation.model_copy(update={"regions": regions})
    ordinary = ProcessedFrame(given.result.model_copy(update={"segmentation": segmentation}))
    assert [one["category_id"] for one in ordinary.to_coco()] == [0, 1, 2]
    for number, frame in enumerate((given, ordinary)):
        path = tmp_path / f"{number}.json"
        with CocoWriter(path, CLASSES) as file:
            file.write(frame)
        written = json.loads(path.read_text())
        assert {one["category_id"] for one in written["annotations"]} <= {one["id"] for one in written["categories"]}
        assert (0 in {one["id"] for one in written["categories"]}) == bool(number)


MASK = np.zeros((24, 32), np.bool_)  # at half the frame's resolution
MASK[2:20, 4:10] = True
POINTS = ((10.0, 20.0, 0.9), (12.0, 30.0, 0.2), (14.0, 40.0, 0.5))
PARTS = {"mask": run_lengths(MASK), "keypoints": POINTS}
KEYPOINTS = KeypointsInfo(names=("head", "hip", "foot"), skeleton=((0, 1), (1, 2)))


def test_masks_of_objects_are_converted_for_supervision() -> None:
    pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    given = detected(PERSON.model_copy(update=PARTS)).to_supervision()
    assert given.mask is not None
    np.testing.assert_array_equal(given.mask, MASK.repeat(2, axis=0).repeat(2, axis=1)[np.newaxis])


def test_keypoints_are_converted_for_supervision() -> None:
    supervision = pytest.importorskip("supervision", reason="the extra `draw` is not installed")
    given = detected(PERSON.model_copy(update=PARTS)).to_keypoints()
    assert isinstance(given, supervision.KeyPoints)
    np.testing.assert_allclose(given.xy, np.array(POINTS)[np.newaxis, :, :2])
    np.testing.assert_allclose(given.keypoint_confidence, np.array(POINTS)[np.newaxis, :, 2], rtol=1e-6)
    assert len(detected(PERSON).to_keypoints()) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, of numpy
def test_masks_and_keypoints_are_converted_to_coco(tmp_path: Path) -> None:
    given = detected(PERSON.model_copy(update=PARTS), frame=4)
    with CocoWriter(tmp_path / "out.json", CLASSES, KEYPOINTS) as file:
        file.write(given)
    coco = COCO(tmp_path / "out.json")
    [annotation] = coco.loadAnns(coco.getAnnIds(imgIds=4))
    np.testing.assert_array_equal(coco.annToMask(annotation), MASK.repeat(2, axis=0).repeat(2, axis=1))
    assert annotation["area"] == 4 * MASK.sum()
    assert annotation["keypoints"] == [10.0, 20.0, 2, 0, 0, 0, 14.0, 40.0, 2]
    assert (annotation["num_keypoints"], annotation["keypoint_scores"]) == (2, [0.9, 0.2, 0.5])
    [category] = coco.loadCats([1])
    assert category["keypoints"] == ["head", "hip", "foot"]
    assert category["skeleton"] == [[1, 2], [2, 3]]
