"""Previews show a frame with its result."""

import io

import numpy as np
import pytest
from PIL import Image

from keywarp.engines.manifest import ManifestClass
from keywarp.engines.result import FrameKind, FrameResult, LabelMap
from keywarp.server.streams.overlay import draw

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
