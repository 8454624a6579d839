import base64

import numpy as np
import pytest
from PIL import Image

from keywarp.client.color_map import PALETTE
from keywarp.protocol import run_lengths
from tests.e2e.dashboard.browsing import Visit
from tests.server.media import GREEN, RED, saved

BLUE = (0, 0, 255)
DRAW = """async ([classes, result, keypoints]) => {
    const { Overlay } = await import('/dashboard/overlay.js');
    const canvas = new OffscreenCanvas(80, 80);
    const context = canvas.getContext('2d', { alpha: false });
    const overlay = new Overlay(classes, keypoints);
    overlay.draw(context, await overlay.prepare(result));
    return [...context.getImageData(0, 0, 80, 80).data];
}"""
CLASSES = [{"id": i, "name": f"class {i}", "color": color} for i, color in enumerate([BLUE, RED, GREEN])]
RESULT = {"width": 80, "height": 80, "kind": "propagated", "key_age": 3}


@pytest.mark.parametrize(("shown", "ground"), [((1, 2), (0, 0, 0)), ((0, 1, 2), np.array(BLUE) / 2)])
def test_masks_of_classes_with_a_region_have_their_colours(
    visit: Visit, shown: tuple[int, ...], ground: tuple[float, ...]
) -> None:
    """Class 0 has one if it isn't the background."""
    labels = np.array([[0, 1], [2, 1]], np.uint8).repeat(40, axis=0).repeat(40, axis=1)
    png = base64.b64encode(saved(Image.fromarray(labels), "PNG")).decode()
    regions = [{"class_id": i, "name": f"class {i}", "area": float((labels == i).mean())} for i in shown]
    result = RESULT | {"segmentation": {"width": 80, "height": 80, "labels_png": png, "regions": regions}}
    image = np.reshape(visit.page.evaluate(DRAW, [CLASSES, result]), (80, 80, 4))[..., :3]
    np.testing.assert_allclose(image[35, 5], ground, atol=2)
    np.testing.assert_allclose(image[60, 60], np.array(RED) / 2, atol=2)
    np.testing.assert_allclose(image[60, 20], np.array(GREEN) / 2, atol=2)


def test_boxes_have_their_classes_colours_and_uncertain_ones_are_left_out(visit: Visit) -> None:
    certain = {"class_id": 2, "name": "class 2", "confidence": 0.9, "xyxy": [10, 40, 70, 75]}
    uncertain = {"class_id": 1, "name": "class 1", "confidence": 0.4, "xyxy": [0, 30, 79, 79]}
    result = RESULT | {"detections": [certain, uncertain]}
    image = np.reshape(visit.page.evaluate(DRAW, [CLASSES, result]), (80, 80, 4))[..., :3]
    np.testing.assert_array_equal(image[60, 11], GREEN)  # the left side of the box
    np.testing.assert_array_equal(image[74, 40], GREEN)  # its bottom
    np.testing.assert_array_equal(image[60, 40], (0, 0, 0))
    np.testing.assert_array_equal(image[78, 79], (0, 0, 0))


def test_boxes_that_cannot_be_relied_on_are_dashed(visit: Visit) -> None:
    def left_side(**rated: float) -> np.ndarray:
        box = {"class_id": 2, "name": "class 2", "confidence": 0.9, "xyxy": [10, 40, 70, 75], **rated}
        drawn = visit.page.evaluate(DRAW, [CLASSES, RESULT | {"detections": [box]}])
        return np.reshape(drawn, (80, 80, 4))[45:70, 11, :3]

    for rated in ({}, {"reliability": 0.9}):
        assert (left_side(**rated) == GREEN).all()
    dashed = (left_side(reliability=0.4) == GREEN).all(axis=1)
    assert 5 < dashed.sum() < 20


def test_objects_masks_are_painted_and_uncertain_ones_are_left_out(visit: Visit) -> None:
    mask = np.zeros((40, 40), np.bool_)  # at half the resolution
    mask[25:35, 10:30] = True
    parts = {"class_id": 2, "name": "class 2", "xyxy": [10, 40, 70, 75], "mask": run_lengths(mask).model_dump()}
    for confidence, color in ((0.9, np.array(GREEN) / 2), (0.4, (0, 0, 0))):
        result = RESULT | {"detections": [{**parts, "confidence": confidence}]}
        image = np.reshape(visit.page.evaluate(DRAW, [CLASSES, result]), (80, 80, 4))[..., :3]
        np.testing.assert_allclose(image[60, 40], color, atol=2)
        np.testing.assert_array_equal(image[72, 40], (0, 0, 0))  # in the box, below the mask
        np.testing.assert_array_equal(image[60, 64], (0, 0, 0))


def test_certain_keypoints_are_drawn_with_their_skeleton(visit: Visit) -> None:
    points = [[20, 50, 0.9], [60, 50, 0.9], [40, 70, 0.3]]
    one = {"class_id": 2, "name": "class 2", "confidence": 0.9, "xyxy": [10, 30, 70, 78], "keypoints": points}
    skeleton = {"names": ["a", "b", "c"], "skeleton": [[0, 1], [1, 2]]}
    result = RESULT | {"detections": [one]}
    image = np.reshape(visit.page.evaluate(DRAW, [CLASSES, result, skeleton]), (80, 80, 4))[..., :3]
    np.testing.assert_array_equal(image[50, 40], GREEN)
    assert image[50, 20].min() > 150
    np.testing.assert_array_equal(image[70, 40], (0, 0, 0))
    np.testing.assert_array_equal(image[60, 50], (0, 0, 0))


def test_dense_maps_have_the_clients_colours_over_a_grey_picture(visit: Visit) -> None:
    draw = DRAW.replace(
        "const overlay", "context.fillStyle = 'rgb(0 0 90)'; context.fillRect(0, 0, 80, 80); const overlay"
    )
    values = np.repeat(np.linspace(0, 65535, 80)[np.newaxis], 80, axis=0).astype(np.uint16)
    dense = {"width": 80, "height": 80, "quantity": "depth", "minimum": 1.5, "maximum": 9}
    result = RESULT | {
        "dense": dense | {"values_png": base64.b64encode(saved(Image.fromarray(values), "PNG")).decode()}
    }
    image = np.reshape(visit.page.evaluate(draw, [[], result]), (80, 80, 4))[..., :3]
    for column in (0, 40, 79):
        color = 0.75 * PALETTE[round(values[60, column] / 257)].astype(float)
        over = image[60, column] - color
        np.testing.assert_allclose(over, over.mean(), atol=4)  # grey
        assert 0 <= over.mean() < 30
