"""How results look in a notebook: as text, as a picture, and as a table."""

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Final

from PIL import Image

from keywarp.client.errors import DrawingError
from keywarp.protocol import ClassInfo

if TYPE_CHECKING:
    from keywarp.client.results import ProcessedFrame

MOST_ROWS: Final = 12  # objects or classes that a table lists
MOST_NAMES: Final = 4  # that a line of text names
COLORS: Final = (  # of classes whose colours aren't known; Okabe and Ito's, which colour-blind people can tell apart
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def to_text(result: "ProcessedFrame") -> str:
    """Return one short line, without the arrays."""
    age = "" if result.kind == "key" else f", key age {result.key_age}"
    latency = "" if result.latency is None else f", {result.latency * 1000:.1f} ms"
    return f"<frame {result.frame} of {result.result.stream}: {result.kind}{age}, {_contents(result)}{latency}>"


def to_png(result: "ProcessedFrame") -> bytes | None:
    """Return the annotated picture as PNG; None if the frame's image is unknown or the extra `draw` isn't installed."""
    if result.image is None:
        return None
    try:
        from keywarp.client.drawing import Annotator

        annotator = Annotator(result.classes or _guess_classes(result))
    except DrawingError:
        return None
    file = io.BytesIO()
    Image.fromarray(annotator.annotate(result.image, result)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def to_html(result: "ProcessedFrame") -> str:
    """Return the picture, if there is one, and a table of the largest classes or the most confident objects."""
    parts = [f"<div>{escape(to_text(result)[1:-1])}</div>"]
    if png := to_png(result):
        parts.append(
            f'<img alt="" style="max-width:100%" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        )
    rows = _rows(result)
    if rows:
        cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[:MOST_ROWS])
        more = len(rows) - MOST_ROWS
        parts.append(f"<table>{cells}</table>" + (f"<div>and {more} more</div>" if more > 0 else ""))
    return "\n".join(parts)


def _rows(result: "ProcessedFrame") -> list[tuple[str, ...]]:
    """Return a row for each object, or each class of a segmentation."""
    found = result.result
    if found.detections is not None:
        return [
            (
                one.name if one.track_id is None else f"{one.name} #{one.track_id}",
                f"{100 * one.confidence:.0f} %",
                ", ".join(f"{value:.0f}" for value in one.xyxy),
            )
            for one in found.detections
        ]
    if found.segmentation is not None:
        regions = sorted(found.segmentation.regions, key=lambda region: -region.area)
        return [(region.name, f"{100 * region.area:.1f} %") for region in regions]
    return []


def _contents(result: "ProcessedFrame") -> str:
    """Say what was found."""
    found = result.result
    if found.dense is not None:
        unit = f" {found.dense.unit}" if found.dense.unit else ""
        return f"{found.dense.quantity} {found.dense.minimum:.3g} to {found.dense.maximum:.3g}{unit}"
    rows = _rows(result)
    names = ", ".join(f"{row[0]} {row[1]}" for row in rows[:MOST_NAMES]) + (", ..." if len(rows) > MOST_NAMES else "")
    if found.detections is not None:
        return f"{len(rows)} objects" + (f" ({names})" if rows else "")
    return names or "nothing"


def _guess_classes(result: "ProcessedFrame") -> list[ClassInfo]:
    """Return the classes that a result names, with colours of ours, for results that don't know their model."""
    found = result.result
    named = {one.class_id: one.name for one in found.detections or ()}
    named |= {region.class_id: region.name for region in found.segmentation.regions} if found.segmentation else {}
    return [ClassInfo(id=i, name=name, color=COLORS[i % len(COLORS)]) for i, name in sorted(named.items())]
