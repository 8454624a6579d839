"""Pictures on the wire: frames out as JPEG, label maps in as PNG."""

from base64 import b64decode
from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from keywarp.client.errors import ProtocolError, SourceError
from keywarp.protocol import Segmentation

MAX_PIXELS = 2**28  # of a label map: more than any server gives


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Compress a frame.

    Args:
        image: RGB, uint8, (H, W, 3).
        quality: 1 to 100.

    Raises:
        SourceError: It isn't such an array.
    """
    check_image(image)
    # 4:2:0 as cameras record it: half the bytes and time of 4:4:4, and the luma, which decides, is whole.
    jpeg: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    return jpeg


def check_image(image: NDArray[np.uint8]) -> None:
    """Refuse what isn't a frame.

    Raises:
        SourceError: It isn't a uint8 array of shape (H, W, 3).
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise SourceError(f"a frame is an RGB uint8 array of shape (H, W, 3), not {got}")
    if not image.size:
        raise SourceError(f"a frame has at least one pixel, this one is {image.shape[1]}x{image.shape[0]}")


def decode_labels(segmentation: Segmentation) -> NDArray[np.uint8]:
    """Read a label map: uint8 (h, w) class ids, at the resolution that was asked for.

    Raises:
        ProtocolError: It isn't an 8-bit grey PNG of the size that the message says, or RLE of that size.
        ValueError: No masks were asked for.
    """
    if segmentation.labels_png is None:
        return _from_runs(segmentation)
    try:
        with Image.open(BytesIO(b64decode(segmentation.labels_png, validate=True)), formats=["PNG"]) as png:
            if png.mode not in ("L", "P") or png.size != (segmentation.width, segmentation.height):
                raise ProtocolError(
                    f"the label map should be a grey {segmentation.width}x{segmentation.height} PNG, "
                    f"it is {png.mode} {png.width}x{png.height}"
                )
            return np.array(png, dtype=np.uint8)
    except (ValueError, OSError) as error:
        raise ProtocolError(f"the label map can't be decoded: {error}") from error


def _from_runs(segmentation: Segmentation) -> NDArray[np.uint8]:
    size = segmentation.height, segmentation.width
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ProtocolError(f"a label map of {size[1]}x{size[0]} pixels can't be")
    labels = np.zeros(size, np.uint8)
    for region in segmentation.regions:
        if region.rle is None:
            raise ValueError("this result has no masks: none were asked for")
        if not 0 <= region.class_id < 256:
            raise ProtocolError(f"a label map has no class {region.class_id}")
        counts = region.rle.counts
        if region.rle.size != size or min(counts, default=0) < 0 or sum(counts) != labels.size:
            raise ProtocolError(f"the mask of {region.name} isn't of {size[1]}x{size[0]} pixels")
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        labels[inside.reshape(size, order="F")] = region.class_id
    return labels
