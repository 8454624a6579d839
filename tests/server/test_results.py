import base64
import io

import numpy as np
from PIL import Image

from keywarp.engines.manifest import ClassInfo
from keywarp.server.results import encode_segmentation

CLASSES = [ClassInfo(id=i, name=name, color=(i, i, i)) for i, name in enumerate(("ground", "person", "car"))]


def test_the_png_holds_the_label_map_and_regions_the_areas() -> None:
    labels = np.zeros((4, 10), np.uint8)
    labels[1, 2:6] = 2
    found = encode_segmentation(labels, CLASSES)
    image = Image.open(io.BytesIO(base64.b64decode(found.labels_png)))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), labels)
    assert (found.width, found.height) == (10, 4)
    assert [(r.class_id, r.name, r.area) for r in found.regions] == [(2, "car", 0.1)]
