"""Results as a pandas table. Needs the extra `pandas`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from keywarp.client.errors import TableError
from keywarp.client.results import ProcessedFrame

if TYPE_CHECKING:
    import pandas

_TYPES: Final = {  # by the column's name, in their order
    "stream": "str",
    "frame": "int64",
    "timestamp": "float64",
    "time": "datetime64[us, UTC]",
    "kind": "str",
    "key_age": "int64",
    "latency": "float64",
    "class_id": "Int64",
    "name": "str",
    "confidence": "float64",
    "reliability": "float64",
    "track_id": "Int64",
    "x1": "float64",
    "y1": "float64",
    "x2": "float64",
    "y2": "float64",
    "area": "float64",
    "minimum": "float64",
    "maximum": "float64",
}


def to_pandas(results: Iterable[ProcessedFrame]) -> "pandas.DataFrame":
    """Make a table of results with one row for each object, or each class of a segmentation, or each dense map.

    Frames on which nothing was found have no row.

    Args:
        results: The results. A stream is read to its end.

    Returns:
        The table. Its columns are `stream`, `frame`, `timestamp` (seconds in the video), `time` (when the frame reached
        the server, UTC), `kind`, `key_age`, `latency` (seconds), `class_id`, `name` (of a dense map, its quantity),
        `confidence`, `reliability`, `track_id`, `x1`, `y1`, `x2`, `y2` (pixels of the frame), `area` (of a class or a
        box, 0..1 of the frame), and `minimum` and `maximum` of a dense map. Those that a task doesn't have are missing
        values.

    Raises:
        TableError: If the extra `pandas` isn't installed.

    Example:
        >>> table = to_pandas(client.stream("street.mp4"))
        >>> table.groupby(["frame", "name"]).size()
    """
    try:
        import pandas
    except ImportError as error:
        raise TableError("this needs pandas: install the client's extra `pandas` (README, Install)") from error
    rows = [row for result in results for row in _rows(result)]
    return pandas.DataFrame(rows, columns=[*_TYPES]).astype(_TYPES)


def _rows(result: ProcessedFrame) -> Iterator[dict[str, Any]]:
    found = result.result
    frame = {
        "stream": found.stream,
        "frame": found.frame,
        "timestamp": found.timestamp,
        "time": found.time,
        "kind": found.kind,
        "key_age": found.key_age,
        "latency": result.latency,
    }
    for one in found.detections or ():
        x1, y1, x2, y2 = one.xyxy
        yield frame | {
            "class_id": one.class_id,
            "name": one.name,
            "confidence": one.confidence,
            "reliability": one.reliability,
            "track_id": one.track_id,
            "x1": x1,
            "y1": y1,
            "x2": x2,
            "y2": y2,
            "area": (x2 - x1) * (y2 - y1) / (found.width * found.height),
        }
    for region in found.segmentation.regions if found.segmentation else ():
        yield frame | {"class_id": region.class_id, "name": region.name, "area": region.area}
    if found.dense is not None:
        yield frame | {"name": found.dense.quantity, "minimum": found.dense.minimum, "maximum": found.dense.maximum}
