"""Convert results to the formats of other tools: supervision, COCO and MOTChallenge."""

import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keywarp.client.errors import DrawingError
from keywarp.client.resources import Closable
from keywarp.protocol import ClassInfo, KeypointsInfo, run_lengths

if TYPE_CHECKING:
    import supervision

    from keywarp.client.results import ProcessedFrame

BACKGROUND: Final = 0  # the class that has no region, if the model has a background
NEEDED: Final = "this needs supervision: install the client's extra `draw` (README, Install)"
CERTAIN: Final = 0.5  # least confidence of a keypoint that counts as seen
_SEPARATORS: Final = (",", ":")


def to_supervision(result: "ProcessedFrame") -> "supervision.Detections":
    """Convert a result for supervision's trackers, zones and annotators.

    Returns:
        The objects, the most confident first, with their masks at the frame's resolution if they have any; or the
        classes of a segmentation except the background, likewise. `data["class_name"]` holds the names, and
        `data["reliability"]` the reliability of each object, NaN on key frames. Objects have their track ids as
        `tracker_id`, -1 without a track, if the stream tracks them.

    Raises:
        DrawingError: If the extra `draw`, which brings supervision, isn't installed.
        ValueError: If the result is a dense map, for which supervision has no form.
    """
    _refuse_dense(result, "supervision's detections")
    try:
        import supervision
    except ImportError as error:
        raise DrawingError(NEEDED) from error
    if result.result.segmentation is None:
        found, names = result.detections, [one.name for one in result.result.detections or ()]
        data: dict[str, Any] = {"class_name": np.array(names, dtype=np.str_), "reliability": found.reliability}
        masks = None if found.mask is None else result.frame_masks
        return supervision.Detections(
            found.xyxy,
            mask=masks,
            confidence=found.confidence,
            class_id=found.class_id,
            tracker_id=found.track_id,
            data=data,
        )
    regions = result.result.segmentation.regions
    if not regions:
        return supervision.Detections.empty()
    masks = np.stack([result.frame_labels == region.class_id for region in regions])
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        class_id=np.array([region.class_id for region in regions], np.intp),
        data={"class_name": np.array([region.name for region in regions], dtype=np.str_)},
    )


def to_keypoints(result: "ProcessedFrame") -> "supervision.KeyPoints":
    """Convert the objects' keypoints for supervision's annotators.

    Returns:
        The points of the objects, the most confident object first, and the points' confidences. `data["class_name"]`
        holds the names of the objects' classes.

    Raises:
        DrawingError: If the extra `draw`, which brings supervision, isn't installed.
        ValueError: If the model's task isn't detection.
    """
    try:
        import supervision
    except ImportError as error:
        raise DrawingError(NEEDED) from error
    found, names = result.detections, [one.name for one in result.result.detections or ()]
    if found.keypoints is None:
        return supervision.KeyPoints.empty()
    data: dict[str, Any] = {"class_name": np.array(names, dtype=np.str_)}
    points = found.keypoints
    return supervision.KeyPoints(points[..., :2], found.class_id, points[..., 2], data=data)


def to_coco(result: "ProcessedFrame", image_id: int | None = None) -> list[dict[str, Any]]:
    """Convert a result to COCO annotations.

    Args:
        result: The result.
        image_id: The id of the image, or None for the frame's position in the stream.

    Returns:
        An annotation for each object, or for each class of a segmentation except the background. It is a dictionary
        with `image_id`, `category_id`, `bbox` (x, y, width, height in pixels of the frame), `area` and `iscrowd`. An
        object has a `score`, too. A class, and an object with a mask, has its pixels in `segmentation`, as uncompressed
        RLE at the frame's resolution, and their number as `area`. An object's `keypoints` are x, y and 2 for each
        point with a confidence of at least 0.5, and zeros for each other one; `num_keypoints` is the number of the
        former, and `keypoint_scores` are all points' confidences.

    Raises:
        ValueError: If the result is a dense map, for which COCO has no form.
    """
    _refuse_dense(result, "COCO's annotations")
    image_id = result.frame if image_id is None else image_id
    if result.result.segmentation is None:
        return [_object_annotation(result, number, image_id) for number in range(len(result.result.detections or ()))]
    found = []
    shown = {region.class_id for region in result.result.segmentation.regions}
    for class_id in np.unique(result.frame_labels).tolist():
        if class_id in shown:
            mask = result.frame_labels == class_id
            rows, columns = np.flatnonzero(mask.any(1)).tolist(), np.flatnonzero(mask.any(0)).tolist()
            found.append(
                {
                    "image_id": image_id,
                    "category_id": class_id,
                    "bbox": _bbox((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)),
                    "area": int(mask.sum()),
                    "iscrowd": 1,  # all objects of the class together
                    "segmentation": run_lengths(mask).model_dump(mode="json"),
                }
            )
    return found


def _object_annotation(result: "ProcessedFrame", number: int, image_id: int) -> dict[str, Any]:
    """Return the COCO annotation of an object."""
    one = (result.result.detections or ())[number]
    bbox = _bbox(one.xyxy)
    annotation: dict[str, Any] = {
        "image_id": image_id,
        "category_id": one.class_id,
        "bbox": bbox,
        "area": round(bbox[2] * bbox[3], 2),
        "iscrowd": 0,
        "score": one.confidence,
    }
    if one.mask is not None:
        mask = result.frame_masks[number]
        annotation |= {"area": int(mask.sum()), "segmentation": run_lengths(mask).model_dump(mode="json")}
    if one.keypoints is not None:
        certain = [score >= CERTAIN for _, _, score in one.keypoints]
        points = zip(one.keypoints, certain, strict=True)
        annotation |= {
            "keypoints": [v for (x, y, _), seen in points for v in ((x, y, 2) if seen else (0, 0, 0))],
            "num_keypoints": sum(certain),
            "keypoint_scores": [score for _, _, score in one.keypoints],
        }
    return annotation


class CocoWriter(Closable):
    """Writes COCO files with `images`, `annotations` and `categories`. Annotations are written immediately."""

    def __init__(self, path: Path, classes: Iterable[ClassInfo], keypoints: KeypointsInfo | None = None) -> None:
        """Begin the file.

        Args:
            path: The file's path.
            classes: The model's classes.
            keypoints: The model's keypoints, which the categories then have, too.

        Raises:
            OSError: If the file can't be written.
        """
        self._classes = tuple(classes)
        self._keypoints: dict[str, Any] = {}
        if keypoints is not None:
            skeleton = [[first + 1, second + 1] for first, second in keypoints.skeleton]  # COCO counts from 1
            self._keypoints = {"keypoints": keypoints.names, "skeleton": skeleton}
        self._written: set[int] = {info.id for info in self._classes if info.id != BACKGROUND}  # ids of categories
        self._images: list[dict[str, Any]] = []
        self._ids = count(1)
        self._file = path.open("w", encoding="utf-8")
        self._file.write('{"annotations":[')

    def write(self, result: "ProcessedFrame") -> None:
        """Add a frame. The id of its image is the frame's position in the stream."""
        size = {"width": result.result.width, "height": result.result.height}
        self._images.append({"id": result.frame, "file_name": f"frame_{result.frame:06d}.jpg", **size})
        for annotation in to_coco(result):
            number = next(self._ids)
            self._written.add(annotation["category_id"])
            line = json.dumps({"id": number, **annotation}, separators=_SEPARATORS)
            self._file.write(f"{',' if number > 1 else ''}\n{line}")

    def close(self) -> None:
        """Finish the file."""
        named = [
            {"id": info.id, "name": info.name, **self._keypoints} for info in self._classes if info.id in self._written
        ]
        images, categories = (json.dumps(part, separators=_SEPARATORS) for part in (self._images, named))
        self._file.write(f'\n],\n"images":{images},\n"categories":{categories}}}\n')
        self._file.close()


def to_mot(result: "ProcessedFrame", *, tracked: bool = False) -> list[str]:
    """Convert a result's objects to MOTChallenge lines: `frame,id,left,top,width,height,confidence,-1,-1,-1`.

    Frames and pixels count from 1, as in the challenge. Without `tracked`, all ids are -1, as in the challenge's public
    detections, which are the input of trackers.

    Args:
        result: The result.
        tracked: Whether ids are track ids, and objects without one (yet) are left out.

    Raises:
        ValueError: If the model's task isn't detection.
    """
    if result.result.detections is None:
        raise ValueError("MOTChallenge files hold boxes, which this model's results don't have")
    lines = []
    for one in result.result.detections:
        if tracked and one.track_id is None:
            continue
        track = one.track_id if tracked else -1
        left, top, width, height = _bbox(one.xyxy)
        box = f"{left + 1:g},{top + 1:g},{width:g},{height:g}"
        lines.append(f"{result.frame + 1},{track},{box},{one.confidence:g},-1,-1,-1")
    return lines


def _refuse_dense(result: "ProcessedFrame", form: str) -> None:
    """Refuse a result that has no objects or classes.

    Raises:
        ValueError: If it is a dense map.
    """
    if result.result.dense is not None:
        quantity = result.result.dense.quantity
        raise ValueError(f"{form} can't hold a map of numbers ({quantity}): use `result.values`, or NDJSON or Parquet")


def _bbox(xyxy: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Convert two corners to a corner and a size, rounded like the coordinates."""
    x1, y1, x2, y2 = xyxy
    return x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)
