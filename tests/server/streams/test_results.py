import base64
import io
import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from keywarp.client import ProcessedFrame
from keywarp.client.images import decode_labels
from keywarp.engines.manifest import ManifestClass
from keywarp.engines.masks import InstanceMasks
from keywarp.engines.result import Detections, FrameKind, FrameResult, KeyReason, LabelMap, Output
from keywarp.protocol import Masks, Resolution, Result
from keywarp.server.streams.results import encode_detections, encode_result, encode_segmentation

CLASSES = [ManifestClass(id=i, name=name, color=(i, i, i)) for i, name in enumerate(("ground", "person", "car"))]
LABELS = np.array([[0, 2, 2, 2]], np.uint8)
NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.intp))
OBJECTS = Detections(
    xyxy=np.array([[0.004, 1.006, 30.126, 40.99], [7, 8, 9, 10]], np.float32),
    confidence=np.array([0.87, 0.123449], np.float32),
    class_id=np.array([2, 1]),
)


PROPAGATED = FrameResult(3, FrameKind.PROPAGATED, 2, 48, 64, NOTHING, inference=0.02, postprocess=0.001)


def encoded(output: Output) -> Result:
    found = replace(PROPAGATED, output=output)
    return encode_result(found, CLASSES, stream="s", decode=0.003, waited=0.004, id="mine", timestamp=1.5)


def test_the_png_holds_the_label_map_and_the_regions_hold_the_areas() -> None:
    labels = np.zeros((4, 10), np.uint8)
    labels[1, 2:6] = 2
    found = encode_segmentation(labels, CLASSES)
    assert found.labels_png
    image = Image.open(io.BytesIO(base64.b64decode(found.labels_png)))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), labels)
    assert (found.width, found.height) == (10, 4)
    assert [(r.class_id, r.name, r.area) for r in found.regions] == [(2, "car", 0.1)]


def test_masks_may_be_run_length_encoded() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (5, 7)).astype(np.uint8)
    found = encode_segmentation(labels, CLASSES, "rle")
    assert found.labels_png is None
    for region in found.regions:
        assert region.rle
        assert (region.rle.size, sum(region.rle.counts)) == ((5, 7), 35)
        assert sum(region.rle.counts[1::2]) == round(35 * region.area)
    np.testing.assert_array_equal(decode_labels(found), labels)


def test_masks_may_be_left_out() -> None:
    found = encode_segmentation(LABELS, CLASSES, "none")
    assert found.labels_png is None
    assert [(r.name, r.area, r.rle) for r in found.regions] == [("car", 0.75, None)]
    with pytest.raises(ValueError, match="the stream asked for none"):
        decode_labels(found)


@pytest.mark.parametrize("masks", ["png", "rle"])
def test_masks_may_have_the_frames_resolution(masks: Masks) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (5, 7)).astype(np.uint8)
    found = FrameResult(3, FrameKind.KEY, 0, 48, 64, LabelMap(labels), inference=0.02, postprocess=0.001)
    at = {
        resolution: ProcessedFrame(
            encode_result(found, CLASSES, stream="s", decode=0, waited=0, masks=masks, resolution=resolution)
        )
        for resolution in get_args(Resolution)
    }
    assert at["model"].labels.shape == (5, 7)
    assert at["frame"].labels.shape == (48, 64)
    np.testing.assert_array_equal(at["frame"].labels, at["model"].frame_labels)


def test_detections_keep_their_order_and_are_named_and_rounded() -> None:
    car, person = encode_detections(OBJECTS, CLASSES)
    assert (car.class_id, car.name, car.confidence, car.xyxy) == (2, "car", 0.87, (0.0, 1.01, 30.13, 40.99))
    assert (person.class_id, person.name, person.confidence, person.xyxy) == (1, "person", 0.1234, (7, 8, 9, 10))


def with_masks() -> Detections:
    """Two objects on a frame of 48x64 with masks of 24x32 pixels, and two keypoints each."""
    windows = np.ones((10, 8), np.bool_), np.random.default_rng(0).random((5, 5)) < 0.5
    masks = InstanceMasks(24, 32, np.array([[4, 6], [20, 0]]), windows)
    points = np.array([[[1.006, 2, 0.98766], [-3, 4.5, 0]]] * 2, np.float32)
    return replace(OBJECTS, masks=masks, keypoints=points)


def test_objects_have_masks_and_keypoints() -> None:
    objects = with_masks()
    assert objects.masks is not None
    result = encoded(objects)
    given = ProcessedFrame(Result.model_validate_json(result.model_dump_json()))
    assert given.detections.mask is not None
    np.testing.assert_array_equal(given.detections.mask, objects.masks.whole())
    np.testing.assert_array_equal(given.frame_masks, objects.masks.whole().repeat(2, axis=1).repeat(2, axis=2))
    assert result.detections is not None
    assert result.detections[0].keypoints == ((1.01, 2.0, 0.9877), (-3.0, 4.5, 0.0))
    assert given.detections.keypoints is not None
    assert given.detections.keypoints.shape == (2, 2, 3)


def test_objects_masks_have_the_resolution_that_was_asked_for_or_are_left_out() -> None:
    found = replace(PROPAGATED, output=with_masks())
    at = {
        (masks, resolution): ProcessedFrame(
            encode_result(found, CLASSES, stream="s", decode=0, waited=0, masks=masks, resolution=resolution)
        ).detections
        for masks in get_args(Masks)
        for resolution in get_args(Resolution)
    }
    for masks in ("png", "rle"):
        assert [at[masks, r].mask.shape for r in ("model", "frame")] == [(2, 24, 32), (2, 48, 64)]  # type: ignore[union-attr]
    assert at["none", "frame"].mask is None
    assert at["none", "frame"].keypoints is not None
    with pytest.raises(ValueError, match="the stream asked for none"):
        _ = ProcessedFrame(encode_result(found, CLASSES, stream="s", decode=0, waited=0, masks="none")).frame_masks


def test_numbers_have_only_meaningful_digits_on_the_wire() -> None:
    written = json.loads(encoded(OBJECTS).model_dump_json(), parse_float=str)["detections"][0]
    assert (written["confidence"], written["xyxy"]) == ("0.87", ["0.0", "1.01", "30.13", "40.99"])


def test_a_key_frames_result_has_its_reason_and_the_measured_change() -> None:
    found = FrameResult(
        3, FrameKind.KEY, 0, 48, 64, NOTHING, inference=0.02, postprocess=0.001, reason=KeyReason.CUT, change=2 / 3
    )
    result = encode_result(found, CLASSES, stream="s", decode=0.003, waited=0.004)
    assert (result.reason, result.change) == ("cut", 0.6667)
    assert (encoded(NOTHING).reason, encoded(NOTHING).change) == (None, None)


def test_a_propagated_result_says_how_far_it_and_its_boxes_can_be_trusted() -> None:
    cells = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    objects = replace(OBJECTS, reliability=np.array([2 / 3, 1], np.float32))
    found = replace(PROPAGATED, output=objects, motion="dis-chained", reliability=0.87654321, reliability_map=cells)
    result = encode_result(found, CLASSES, stream="s", decode=0, waited=0, reliability="map")
    assert (result.motion, result.reliability) == ("dis-chained", 0.8765)
    assert result.detections is not None
    assert [one.reliability for one in result.detections] == [0.6667, 1.0]
    given = ProcessedFrame(result)
    assert given.reliability_map is not None
    np.testing.assert_allclose(given.reliability_map, cells, atol=0.5 / 255)
    np.testing.assert_allclose(given.detections.reliability, [2 / 3, 1], atol=1e-4)


def test_the_map_of_reliability_is_only_sent_to_streams_that_ask_for_it() -> None:
    found = replace(PROPAGATED, reliability=1.0, reliability_map=np.ones((3, 4), np.float32))
    result = encode_result(found, CLASSES, stream="s", decode=0, waited=0)
    assert (result.reliability, ProcessedFrame(result).reliability_map) == (1.0, None)


def test_a_key_frame_has_no_reliability() -> None:
    found = replace(PROPAGATED, kind=FrameKind.KEY, output=OBJECTS)
    given = ProcessedFrame(encode_result(found, CLASSES, stream="s", decode=0, waited=0, reliability="map"))
    assert (given.result.motion, given.reliability, given.reliability_map) == (None, None, None)
    assert np.isnan(given.detections.reliability).tolist() == [True, True]


@pytest.mark.parametrize(("output", "count"), [(OBJECTS, 2), (NOTHING, 0)])
def test_a_result_of_detection_has_only_detections(output: Detections, count: int) -> None:
    result = encoded(output)
    assert result.detections is not None
    assert len(result.detections) == count
    assert result.segmentation is None


def test_a_result_of_segmentation_has_only_a_segmentation() -> None:
    result = encoded(LabelMap(LABELS))
    assert result.segmentation == encode_segmentation(LABELS, CLASSES)
    assert result.detections is None


@pytest.mark.parametrize("output", [LabelMap(LABELS), OBJECTS])
def test_a_result_identifies_its_frame_and_has_its_timings(output: Output) -> None:
    result = encoded(output)
    assert (result.stream, result.frame, result.id, result.timestamp) == ("s", 3, "mine", 1.5)
    assert (result.width, result.height, result.kind, result.key_age) == (64, 48, "propagated", 2)
    timings = result.timings
    assert (timings.decode, timings.queue, timings.inference) == (0.003, 0.004, 0.02)
    assert timings.postprocess > 0.001  # encoding is part of it


@pytest.mark.parametrize("masks", get_args(Masks))
def test_class_0_has_a_region_if_it_is_no_background(masks: Masks) -> None:
    found = encode_segmentation(LABELS, CLASSES, masks, background=False)
    assert [(r.class_id, r.area) for r in found.regions] == [(0, 0.25), (2, 0.75)]
    result = encode_result(
        replace(PROPAGATED, output=LabelMap(LABELS)), CLASSES, stream="s", decode=0, waited=0, background=False
    )
    assert result.segmentation is not None
    assert [r.name for r in result.segmentation.regions] == ["ground", "car"]
