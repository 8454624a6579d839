"""Encode the engine's results for the wire."""

import base64
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.engines import FrameResult
from keywarp.engines.manifest import DenseSettings, ManifestClass
from keywarp.engines.masks import InstanceMasks
from keywarp.engines.result import NO_TRACK, DenseMap, Detections
from keywarp.protocol import (
    ClientId,
    Dense,
    Detection,
    Masks,
    Region,
    Reliability,
    Resolution,
    Result,
    RunLengths,
    Segmentation,
    Timings,
    run_lengths,
    window_run_lengths,
)
from keywarp.server.streams.png import encode_grey

BACKGROUND = 0
AGE_DECIMALS = 3  # of seconds
CHANGE_DECIMALS = 4
CONFIDENCE_DECIMALS = 4
RELIABILITY_DECIMALS = 4
COORDINATE_DECIMALS = 2  # fractions of a pixel
VALUES = 256  # of a class id
STEPS = 65535  # from the lowest to the highest number of a dense map


def encode_result(
    found: FrameResult,
    classes: Sequence[ManifestClass],
    *,
    stream: str,
    decode: float,
    waited: float,
    run: str = "",
    id: ClientId | None = None,  # noqa: A002
    timestamp: float | None = None,
    received: datetime | None = None,
    masks: Masks = "png",
    resolution: Resolution = "model",
    reliability: Reliability = "none",
    background: bool = True,
    dense: DenseSettings | None = None,
) -> Result:
    """Convert an engine's result to its wire form. The time for this counts as post-processing.

    Args:
        found: The engine's result.
        classes: The model's classes, indexed by class id.
        stream: The stream's id.
        decode: Seconds that decoding the frame took.
        waited: Seconds that the frame waited before it was queued for the device.
        run: The stream's run.
        id: The producer's id of the frame.
        timestamp: The producer's timestamp of the frame in seconds.
        received: When the frame reached the server, or None to leave that out.
        masks: The form of a segmentation. Objects have masks, and a dense map its pixels, unless it is `none`.
        resolution: The resolution of masks and dense maps.
        reliability: Whether the result has the map of its reliability.
        background: Whether class 0 of a segmentation is the background.
        dense: What a dense map is.
    """
    started = time.perf_counter()
    segmentation, detections, values = None, None, None
    if isinstance(found.output, Detections):
        size = (found.height, found.width) if resolution == "frame" else None
        detections = encode_detections(found.output, classes, masks=masks != "none", size=size)
    elif isinstance(found.output, DenseMap):
        assert dense is not None  # ensured by the manifest's validation
        numbers = found.output.values
        if resolution == "frame" and masks != "none":
            numbers = resize_values(numbers, found.height, found.width)
        values = encode_dense(numbers, dense, masks)
    else:
        labels = found.output.labels
        if resolution == "frame" and masks != "none":
            labels = resize_labels(labels, found.height, found.width)
        segmentation = encode_segmentation(labels, classes, masks, background)
    cells = found.reliability_map if reliability == "map" else None
    reliability_png = None if cells is None else _encode_png((255 * cells).round().astype(np.uint8))
    postprocess = found.postprocess + time.perf_counter() - started
    return Result(
        stream=stream,
        frame=found.index,
        run=run,
        id=id,
        timestamp=timestamp,
        time=received,
        width=found.width,
        height=found.height,
        kind=found.kind.value,
        key_age=found.key_age,
        key_age_seconds=round(found.key_age_seconds, AGE_DECIMALS),
        reason=None if found.reason is None else found.reason.value,
        change=None if found.change is None else round(found.change, CHANGE_DECIMALS),
        motion=found.motion,
        reliability=None if found.reliability is None else round(found.reliability, RELIABILITY_DECIMALS),
        reliability_png=reliability_png,
        timings=Timings(decode=decode, queue=waited + found.queue, inference=found.inference, postprocess=postprocess),
        segmentation=segmentation,
        detections=detections,
        dense=values,
    )


def resize_labels(labels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a label map so that each pixel gets the label at its centre."""
    resized = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.uint8)


def resize_values(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resize a dense map bilinearly."""
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def encode_dense(values: NDArray[np.float32], dense: DenseSettings, masks: Masks = "png") -> Dense:
    """Encode a dense map. This takes about 1 ms at 384x384.

    Args:
        values: The numbers, (h, w), all finite.
        dense: What they are.
        masks: `none` to leave the pixels out.

    Returns:
        The range of the numbers, and the pixels as a 16-bit grey PNG in base64, 0 being the lowest number and 65535 the
        highest.
    """
    minimum, maximum = float(values.min()), float(values.max())
    values_png = None
    if masks != "none":
        steps = (values - np.float64(minimum)) * (STEPS / ((maximum - minimum) or 1.0))
        values_png = _encode_png(steps.round().astype(np.uint16))
    height, width = values.shape
    return Dense(
        width=width,
        height=height,
        quantity=dense.quantity,
        unit=dense.unit,
        minimum=minimum,
        maximum=maximum,
        values_png=values_png,
    )


def encode_segmentation(
    labels: NDArray[np.uint8], classes: Sequence[ManifestClass], masks: Masks = "png", background: bool = True
) -> Segmentation:
    """Encode a label map. This takes about 0.1 ms at 640x272.

    Args:
        labels: The class ids, (h, w).
        classes: The model's classes, indexed by class id.
        masks: The form of the pixels: `png`, `rle` or `none`.
        background: Whether class 0 is the background.

    Returns:
        The area of each class that is present, except for the background; and the pixels, either as an 8-bit grey PNG
        in base64 or as each class's mask in COCO's RLE.
    """
    height, width = labels.shape
    # A fifth of the time of NumPy's `bincount`, which would also keep the interpreter's lock.
    shares = cv2.calcHist([labels], [0], None, [VALUES], [0, VALUES]).ravel() / np.float64(labels.size)
    regions = tuple(
        Region(
            class_id=c.id,
            name=c.name,
            area=float(shares[c.id]),
            rle=run_lengths(labels == c.id) if masks == "rle" else None,
        )
        for c in classes
        if shares[c.id] and not (background and c.id == BACKGROUND)
    )
    labels_png = _encode_png(labels) if masks == "png" else None
    return Segmentation(width=width, height=height, labels_png=labels_png, regions=regions)


def encode_detections(
    found: Detections,
    classes: Sequence[ManifestClass],
    *,
    masks: bool = True,
    size: tuple[int, int] | None = None,
) -> tuple[Detection, ...]:
    """Encode detections. This takes less than 1 ms for 100 of them without masks.

    Args:
        found: The detections.
        classes: The model's classes, indexed by class id.
        masks: Whether to encode the masks, too.
        size: The height and width of the masks, or None for the model's resolution.

    Returns:
        The detections in the same order, their numbers rounded to meaningful digits.
    """
    # Rounding float32 would leave 0.87 as 0.8700000047683716 in JSON.
    boxes = found.xyxy.astype(np.float64).round(COORDINATE_DECIMALS).tolist()
    scores = found.confidence.astype(np.float64).round(CONFIDENCE_DECIMALS).tolist()
    reliability: list[float | None] = [None] * len(boxes)
    if found.reliability is not None:
        reliability = found.reliability.astype(np.float64).round(RELIABILITY_DECIMALS).tolist()
    encoded: list[RunLengths | None] = [None] * len(boxes)
    if masks and found.masks is not None:
        encoded = [*_encode_masks(found.masks if size is None else found.masks.resize(*size))]
    tracks: list[int | None] = [None] * len(boxes)
    if found.track_id is not None:
        tracks = [None if track == NO_TRACK else track for track in found.track_id.tolist()]
    keypoints: list[Any] = [None] * len(boxes)
    if found.keypoints is not None:
        decimals = np.array([COORDINATE_DECIMALS, COORDINATE_DECIMALS, CONFIDENCE_DECIMALS])
        units = 10.0**decimals
        keypoints = (np.rint(found.keypoints * units) / units).tolist()
    return tuple(
        Detection(
            class_id=class_id,
            name=classes[class_id].name,
            confidence=score,
            xyxy=tuple(box),
            reliability=reliable,
            track_id=track,
            mask=mask,
            keypoints=points,
        )
        for class_id, score, box, reliable, track, mask, points in zip(
            found.class_id.tolist(), scores, boxes, reliability, tracks, encoded, keypoints, strict=True
        )
    )


def _encode_masks(masks: InstanceMasks) -> Iterator[RunLengths]:
    for (left, top), window in zip(masks.corners.tolist(), masks.windows, strict=True):
        yield window_run_lengths(window, left, top, masks.height, masks.width)


def _encode_png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> str:
    """Encode an image as a grey PNG in base64, of 8 or 16 bits."""
    return base64.b64encode(encode_grey(pixels)).decode("ascii")
