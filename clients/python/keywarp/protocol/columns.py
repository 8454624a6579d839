"""Responses as rows of a table, as Parquet files have them. Needs the extra `parquet`."""

import base64
from typing import Any, Final

import pyarrow as pa

from keywarp.protocol.messages import Detection, Dropped, Error, Region, Result, Segmentation

_KEYPOINT: Final = pa.struct({"x": pa.float32(), "y": pa.float32(), "confidence": pa.float32()})
_DETECTION: Final = pa.struct(
    {
        "class_id": pa.int32(),
        "name": pa.string(),
        "confidence": pa.float32(),
        "x1": pa.float32(),
        "y1": pa.float32(),
        "x2": pa.float32(),
        "y2": pa.float32(),
        "reliability": pa.float32(),
        "track_id": pa.int64(),
        "mask": pa.list_(pa.int32()),
        "keypoints": pa.list_(_KEYPOINT),
    }
)
_REGION: Final = pa.struct(
    {"class_id": pa.int32(), "name": pa.string(), "pixels": pa.int64(), "rle": pa.list_(pa.int32())}
)
SCHEMA: Final = pa.schema(
    {
        "stream": pa.string(),
        "time": pa.timestamp("us", "UTC"),  # when the frame reached the server, was dropped or failed
        "type": pa.string(),  # result, error, dropped
        "frame": pa.int64(),
        "run": pa.string(),  # from the stream's creation to its end; it names a row for ever together with `frame`
        "id": pa.string(),  # the client's id of the frame
        "timestamp": pa.float64(),  # the client's or the container's timestamp, in seconds
        "width": pa.int32(),
        "height": pa.int32(),
        "kind": pa.string(),
        "key_age": pa.int32(),
        "key_age_seconds": pa.float64(),
        "reason": pa.string(),  # why the frame is a key frame, or was dropped
        "change": pa.float32(),
        "motion": pa.string(),
        "reliability": pa.float32(),
        "reliability_png": pa.binary(),
        "decode": pa.float64(),  # in seconds, like the next three
        "queue": pa.float64(),
        "inference": pa.float64(),
        "postprocess": pa.float64(),
        "detections": pa.list_(_DETECTION),
        "mask_width": pa.int32(),
        "mask_height": pa.int32(),
        "regions": pa.list_(_REGION),
        "labels_png": pa.binary(),
        "map_width": pa.int32(),  # of a dense map, like the next six
        "map_height": pa.int32(),
        "quantity": pa.string(),
        "unit": pa.string(),
        "minimum": pa.float64(),
        "maximum": pa.float64(),
        "values_png": pa.binary(),
        "status": pa.int32(),  # HTTP status of an error
        "problem": pa.string(),
    }
)


def row(stream: str, response: Result | Error | Dropped) -> dict[str, Any]:
    """Return the row of a response, which has the columns of `SCHEMA`."""
    cells: dict[str, Any] = {
        "stream": stream,
        "time": response.time,
        "type": response.type,
        "frame": response.frame,
        "run": response.run,
        "id": None if response.id is None else str(response.id),
    }
    match response:
        case Dropped():
            return cells | {"reason": response.reason}
        case Error():
            return cells | {"status": response.problem.status, "problem": response.problem.detail}
    cells |= {
        "timestamp": response.timestamp,
        "width": response.width,
        "height": response.height,
        "kind": response.kind,
        "key_age": response.key_age,
        "key_age_seconds": response.key_age_seconds,
        "reason": response.reason,
        "change": response.change,
        "motion": response.motion,
        "reliability": response.reliability,
        "reliability_png": base64.b64decode(response.reliability_png) if response.reliability_png else None,
        **dict(response.timings),
    }
    if response.detections is not None:
        cells["detections"] = [_detection(one) for one in response.detections]
        if masks := [one.mask for one in response.detections if one.mask is not None]:
            cells |= dict(zip(("mask_height", "mask_width"), masks[0].size, strict=True))
    if segmentation := response.segmentation:
        cells |= {
            "mask_width": segmentation.width,
            "mask_height": segmentation.height,
            "regions": [_region(segmentation, region) for region in segmentation.regions],
            "labels_png": base64.b64decode(segmentation.labels_png) if segmentation.labels_png else None,
        }
    if dense := response.dense:
        cells |= {
            "map_width": dense.width,
            "map_height": dense.height,
            **dense.model_dump(include={"quantity", "unit", "minimum", "maximum"}),
            "values_png": base64.b64decode(dense.values_png) if dense.values_png else None,
        }
    return cells


def _detection(one: Detection) -> dict[str, Any]:
    return {
        "class_id": one.class_id,
        "name": one.name,
        "confidence": one.confidence,
        **dict(zip(("x1", "y1", "x2", "y2"), one.xyxy, strict=True)),
        "reliability": one.reliability,
        "track_id": one.track_id,
        "mask": one.mask.counts if one.mask else None,
        "keypoints": [dict(zip(("x", "y", "confidence"), point, strict=True)) for point in one.keypoints]
        if one.keypoints is not None
        else None,
    }


def _region(segmentation: Segmentation, region: Region) -> dict[str, Any]:
    return {
        "class_id": region.class_id,
        "name": region.name,
        "pixels": round(region.area * segmentation.width * segmentation.height),
        "rle": region.rle.counts if region.rle else None,
    }
