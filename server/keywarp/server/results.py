"""From what the engine found to what goes over the wire."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keywarp.engines.manifest import ClassInfo
from keywarp.protocol import Region, Segmentation

BACKGROUND = 0


def encode_segmentation(labels: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> Segmentation:
    """Encode a label map: about 1 ms at 640x272.

    Args:
        labels: (h, w), class ids.
        classes: Indexed by class id.

    Returns:
        The map as an 8-bit grey PNG in base64, and the area of each class that is there but the background.
    """
    height, width = labels.shape
    png = io.BytesIO()
    Image.fromarray(labels).save(png, "PNG", compress_level=1)
    shares = np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
    regions = tuple(
        Region(class_id=c.id, name=c.name, area=float(shares[c.id]))
        for c in classes
        if c.id != BACKGROUND and shares[c.id]
    )
    labels_png = base64.b64encode(png.getvalue()).decode("ascii")
    return Segmentation(width=width, height=height, labels_png=labels_png, regions=regions)
