"""Previews show a frame with its result."""

import io

import numpy as np
import pytest
from PIL import Image

from keywarp.engines.manifest import ManifestClass
from keywarp.engines.masks import InstanceMasks
from keywarp.engines.result import Detections, FrameKind, FrameResult, LabelMap
from keywarp.server.overlay import draw

CLASSES = [
    ManifestClass(id=i, name=name, color=c) for i, name, c in ((0, "road", (0, 0, 200)), (1, "car", (200, 0, 0)))
]
GREY = np.full((100, 200, 3), 100, np.uint8)


@pytest.mark.parametrize(("background", "left"), [(True, (100, 100, 100)), (False, (50, 50, 150))])
def test_class_0_is_tinted_unless_it_is_the_background(background: bool, left: tuple[int, int, int]) -> None:
    labels = np.zeros((10, 30), np.uint8)  # of another aspect ratio than the frame, as those of stretched frames
    labels[:, 15:] = 1
    found = FrameResult(0, FrameKind.KEY, 0, 100, 200, LabelMap(labels), inference=0, postprocess=0)
    picture = np.asarray(Image.open(io.BytesIO(draw(GREY, found, CLASSES, 200, background))))
    np.testing.assert_allclose(picture[80, 50], left, atol=6)
    np.testing.assert_allclose(picture[80, 150], (150, 50, 50), atol=6)


def test_masks_and_keypoints_of_objects_are_drawn() -> None:
    masks = InstanceMasks(50, 100, np.array([[60, 10]]), (np.ones((20, 30), np.bool_),))
    objects = Detections(
        np.array([[110, 10, 190, 70]], np.float32),
        np.array([0.9], np.float32),
        np.array([1]),
        masks=masks,
        keypoints=np.array([[[150, 40, 0.9], [30, 30, 0.4]]], np.float32),
    )
    found = FrameResult(0, FrameKind.KEY, 0, 100, 200, objects, inference=0, postprocess=0)
    picture = np.asarray(Image.open(io.BytesIO(draw(GREY, found, CLASSES, 200))))
    np.testing.assert_allclose(picture[55, 130], (150, 50, 50), atol=6)  # in the mask
    np.testing.assert_allclose(picture[65, 130], (100, 100, 100), atol=12)  # in the box, below the mask
    assert picture[40, 150].min() > 150  # the certain point
    np.testing.assert_allclose(picture[80, 30], (100, 100, 100), atol=6)
