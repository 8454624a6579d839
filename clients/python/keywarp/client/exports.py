"""Results in the formats of others: supervision, COCO, MOTChallenge."""

import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from keywarp.client.errors import DrawingError
from keywarp.protocol import ClassInfo, run_lengths

if TYPE_CHECKING:
    import supervision

    from keywarp.client.results import ProcessedFrame

BACKGROUND: Final = 0  # the class that is no region
_SEPARATORS: Final = (",", ":")


def to_supervision(result: "ProcessedFrame") -> "supervision.Detections":
    """Give a result to supervision, for its trackers, zones and annotators.

    Returns:
        The objects, the most certain first; or of a segmentation each class but the background, with its mask at the
        frame's resolution. `data["class_name"]` holds the names.

    Raises:
        DrawingError: The extra `draw`, which brings supervision, isn't installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise DrawingError("this needs supervision: install the client's extra `draw` (README, Install)") from error
    if result.result.segmentation is None:
        found, names = result.detections, [one.name for one in result.result.detections or ()]
        return supervision.Detections(**vars(found), data={"class_name": np.array(names, dtype=np.str_)})
    regions = [region for region in result.result.segmentation.regions if region.class_id != BACKGROUND]
    if not regions:
        return supervision.Detections.empty()
    masks = np.stack([result.frame_labels == region.class_id for region in regions])
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        class_id=np.array([region.class_id for region in regions], np.intp),
        data={"class_name": np.array([region.name for region in regions], dtype=np.str_)},
    )


def to_coco(result: "ProcessedFrame", image_id: int | None = None) -> list[dict[str, Any]]:
    """Make COCO annotations of a result.

    Args:
        result: Its objects, or each class of its segmentation but the background.
        image_id: The image's; None: the frame's position in the stream.

    Returns:
        Dictionaries with `image_id`, `category_id`, `bbox` (x, y, width, height in pixels of the frame), `area`,
        `iscrowd` and, of objects, `score`; of a class its pixels, as uncompressed RLE at the frame's resolution.
    """
    image_id = result.frame if image_id is None else image_id
    if result.result.segmentation is None:
        return [
            {
                "image_id": image_id,
                "category_id": one.class_id,
                "bbox": (box := _bbox(one.xyxy)),
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "score": one.confidence,
            }
            for one in result.result.detections or ()
        ]
    found = []
    for class_id in np.unique(result.frame_labels).tolist():
        if class_id != BACKGROUND:
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


class CocoWriter:
    """A COCO file: `images`, `annotations` and `categories`. Annotations are written as they come."""

    def __init__(self, path: Path, classes: Iterable[ClassInfo]) -> None:
        """Begin the file.

        Args:
            path: Where.
            classes: The model's.

        Raises:
            OSError: It can't be written.
        """
        self._categories = [{"id": info.id, "name": info.name} for info in classes if info.id != BACKGROUND]
        self._images: list[dict[str, Any]] = []
        self._ids = count(1)
        self._file = path.open("w", encoding="utf-8")
        self._file.write('{"annotations":[')

    def write(self, result: "ProcessedFrame") -> None:
        """Add a frame; its image's id is its position in the stream."""
        size = {"width": result.result.width, "height": result.result.height}
        self._images.append({"id": result.frame, "file_name": f"frame_{result.frame:06d}.jpg", **size})
        for annotation in to_coco(result):
            number = next(self._ids)
            line = json.dumps({"id": number, **annotation}, separators=_SEPARATORS)
            self._file.write(f"{',' if number > 1 else ''}\n{line}")

    def close(self) -> None:
        """Finish the file."""
        images, categories = (json.dumps(part, separators=_SEPARATORS) for part in (self._images, self._categories))
        self._file.write(f'\n],\n"images":{images},\n"categories":{categories}}}\n')
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def to_mot(result: "ProcessedFrame") -> list[str]:
    """Make MOTChallenge lines of a result's objects: `frame,-1,left,top,width,height,confidence,-1,-1,-1`.

    Frames and pixels count from 1, as there. Objects have no identity, as in the challenge's public detections, which
    its trackers start from.

    Raises:
        ValueError: The model's task isn't detection.
    """
    if result.result.detections is None:
        raise ValueError("MOTChallenge files hold boxes, which this model's results don't have")
    lines = []
    for one in result.result.detections:
        left, top, width, height = _bbox(one.xyxy)
        lines.append(f"{result.frame + 1},-1,{left + 1:g},{top + 1:g},{width:g},{height:g},{one.confidence:g},-1,-1,-1")
    return lines


def _bbox(xyxy: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Corners to a corner and the size; differences rounded as the coordinates are."""
    x1, y1, x2, y2 = xyxy
    return x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)
