"""Encode frames as JPEG, and decode the maps in results."""

from base64 import b64decode
from io import BytesIO
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from keywarp.client.errors import ProtocolError, SourceError
from keywarp.protocol import Dense, RunLengths, Segmentation

MAX_PIXELS = 2**28  # the limit for a map, above what any server sends
STEPS = 65535  # from the lowest to the highest number of a dense map


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Compress a frame.

    Args:
        image: The frame, RGB uint8 (H, W, 3).
        quality: The quality of the JPEG, 1 to 100.

    Raises:
        SourceError: If `image` isn't a uint8 array of shape (H, W, 3) with at least one pixel.
    """
    check_image(image)
    # 4:2:0, which cameras use, needs half the bytes and time of 4:4:4, and keeps the luma, which matters most.
    jpeg: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"
    )
    return jpeg


def check_image(image: NDArray[np.uint8]) -> None:
    """Check that an array is a frame.

    Raises:
        SourceError: If it isn't a uint8 array of shape (H, W, 3) with at least one pixel.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise SourceError(f"a frame is an RGB uint8 array of shape (H, W, 3), not {got}")
    if not image.size:
        raise SourceError(f"a frame has at least one pixel, but this one is {image.shape[1]}x{image.shape[0]}")


def decode_labels(segmentation: Segmentation) -> NDArray[np.uint8]:
    """Decode a label map, which is a PNG or RLE.

    Returns:
        Class ids, uint8 (h, w), at the resolution that the stream asked for.

    Raises:
        ProtocolError: If it isn't an 8-bit grey PNG or RLE of the size in the message.
        ValueError: If the stream asked for no masks.
    """
    if segmentation.labels_png is None:
        return _from_runs(segmentation)
    return _decode_png(segmentation.labels_png, "label map", (segmentation.width, segmentation.height))


def decode_values(dense: Dense) -> NDArray[np.float32]:
    """Decode a dense map.

    Returns:
        The numbers, float32 (h, w), at the resolution that the stream asked for. They are exact to 1/131070 of their
        range on the frame.

    Raises:
        ProtocolError: If it isn't a 16-bit grey PNG of the size in the message, or its range isn't finite.
        ValueError: If the stream asked for no masks.
    """
    if dense.values_png is None:
        raise ValueError("this result has no map: the stream asked for none (masks `none`)")
    if not np.isfinite((dense.minimum, dense.maximum)).all():
        raise ProtocolError(f"the dense map can't have numbers from {dense.minimum} to {dense.maximum}")
    steps = _decode_png(dense.values_png, "dense map", (dense.width, dense.height), ("I;16", "I;16B", "I"))
    step = (dense.maximum - dense.minimum) / STEPS
    return (dense.minimum + steps.astype(np.float64) * step).astype(np.float32)


def decode_reliability(reliability_png: str) -> NDArray[np.float32]:
    """Decode the map of a result's reliability.

    Returns:
        The reliability of each cell, float32 (h, w), 0..1.

    Raises:
        ProtocolError: If it isn't an 8-bit grey PNG.
    """
    return _decode_png(reliability_png, "reliability map").astype(np.float32) / np.float32(255)


def decode_mask(rle: RunLengths, name: str) -> NDArray[np.bool_]:
    """Decode a mask, (h, w).

    Args:
        rle: The mask.
        name: What it is a mask of, for errors.

    Raises:
        ProtocolError: If its runs don't have as many pixels as it says.
    """
    height, width = rle.size
    pixels = height * width
    fits = min(rle.size) > 0 and pixels <= MAX_PIXELS and min(rle.counts, default=-1) >= 0
    if not fits or sum(rle.counts) != pixels:
        raise ProtocolError(f"the mask of {name} doesn't have {width}x{height} pixels")
    inside = np.repeat(np.arange(len(rle.counts)) % 2 == 1, rle.counts)
    return inside.reshape(rle.size, order="F")


def _decode_png(
    content: str, name: str, size: tuple[int, int] | None = None, modes: tuple[str, ...] = ("L", "P")
) -> NDArray[Any]:
    """Decode a PNG in base64, called `name` in errors.

    Args:
        content: The PNG.
        name: What it is.
        size: Its width and height, if they are known.
        modes: The modes that Pillow may give it, by default those of 8-bit grey.
    """
    try:
        with Image.open(BytesIO(b64decode(content, validate=True)), formats=["PNG"]) as png:
            if png.mode not in modes or png.size != (size or png.size) or png.width * png.height > MAX_PIXELS:
                expected = "" if size is None else f"{size[0]}x{size[1]} "
                raise ProtocolError(
                    f"the {name} should be a grey {expected}PNG, but it is {png.mode} {png.width}x{png.height}"
                )
            return np.array(png)
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:  # all of them are Pillow's
        raise ProtocolError(f"the {name} can't be decoded: {error}") from error


def _from_runs(segmentation: Segmentation) -> NDArray[np.uint8]:
    size = segmentation.height, segmentation.width
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ProtocolError(f"a label map can't have {size[1]}x{size[0]} pixels")
    labels = np.zeros(size, np.uint8)
    for region in segmentation.regions:
        if region.rle is None:
            raise ValueError("this result has no masks: the stream asked for none")
        if not 0 <= region.class_id < 256:
            raise ProtocolError(f"a label map can't have the class {region.class_id}: class ids are 0 to 255")
        if region.rle.size != size:
            raise ProtocolError(f"the mask of {region.name} doesn't have {size[1]}x{size[0]} pixels")
        labels[decode_mask(region.rle, region.name)] = region.class_id
    return labels
