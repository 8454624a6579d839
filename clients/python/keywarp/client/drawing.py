"""Draw annotated pictures, with classes in their colours and key frames marked. Needs the extra `draw`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from keywarp.client.color_map import PALETTE, colorize
from keywarp.client.errors import DrawingError
from keywarp.client.images import decode_mask
from keywarp.client.instance_drawing import draw_keypoints, draw_mask
from keywarp.client.results import ProcessedFrame
from keywarp.protocol import ClassInfo, Dense, Detection, KeypointsInfo, Region, Result

OPACITY = 0.5  # of a class's colour over the picture
VALUE_OPACITY = 0.75  # of a dense map's colours over the picture, whose contours help to find one's way
CONFIDENCE = 0.5  # objects with less confidence aren't drawn
LEGEND_ROWS = 6  # the most rows of the legend
LEGEND_AREA = 0.001  # 0..1 of the frame; classes that cover less aren't in the legend

INK = (255, 255, 255)
DIM_INK = (196, 202, 210)
PANEL = (14, 18, 24, 184)  # RGBA; the background of text
KEY_INK = (30, 22, 0)
KEY_PANEL = (255, 193, 7, 255)
CASING = (14, 18, 24, 144)  # RGBA; on both sides of a box's line, so that it stands out from any background

Color = tuple[int, int, int]  # RGB


class Annotator:
    """Draws results on their frames.

    Example:
        >>> annotator = Annotator(client.model("street").classes)
        >>> picture = annotator.annotate(result.image, result)
    """

    def __init__(
        self, classes: Iterable[ClassInfo], confidence: float = CONFIDENCE, keypoints: KeypointsInfo | None = None
    ) -> None:
        """Prepare the colours of the classes.

        Args:
            classes: The classes to draw.
            confidence: The least confidence of the objects to draw, 0..1.
            keypoints: The model's keypoints, whose skeleton is drawn.

        Raises:
            DrawingError: If the extra `draw` isn't installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise DrawingError(
                "drawing needs supervision: install the client's extra `draw` (README, Install)"
            ) from error
        self._sv = supervision
        self._confidence = confidence
        self._skeleton = keypoints.skeleton if keypoints else ()
        self._colors = {info.id: info.color for info in classes}
        # supervision paints BGR. Red and blue are swapped here instead of twice in each picture.
        swapped = [(b, g, r) for r, g, b in (self._colors.get(i, INK) for i in range(max(self._colors, default=0) + 1))]
        self._palette = supervision.ColorPalette([supervision.Color(*color) for color in swapped])
        self._masks = supervision.MaskAnnotator(self._palette, opacity=OPACITY)

    def annotate(self, image: NDArray[np.uint8], result: ProcessedFrame) -> NDArray[np.uint8]:
        """Draw a result on a copy of its frame.

        Args:
            image: The frame, RGB (H, W, 3).
            result: The frame's result.

        Returns:
            The picture, RGB (H, W, 3), with the masks of the classes, or with the boxes of the objects, their masks
            and keypoints, their names, track ids and confidences. At the top left are `KEY`, or the age of the key
            frame, and the latency. At the bottom left are the largest classes with their shares of the frame, or the
            most frequent ones with their numbers of objects. If boxes overlap, those of the most confident objects are
            in front, and labels without room are left out. A dense map has its colours, with a scale of them at the
            bottom left.
        """
        picture = image.copy()
        objects = self._objects(result.result, *picture.shape[:2])
        rows = _counts(objects)
        if result.result.segmentation is not None:
            regions = result.result.segmentation.regions
            self._draw_masks(picture, result.labels, {region.class_id for region in regions})
            rows = self._shares(regions)
        masked = [(one, one.found.mask) for one in reversed(objects) if one.found.mask is not None]
        for one, mask in masked:
            thickness = max(1, round(min(picture.shape[:2]) / 480))
            draw_mask(picture, decode_mask(mask, one.name), one.color, thickness)
        dense = result.result.dense
        if dense is not None:
            picture = _tint(picture, result.values, dense)
        canvas = Image.fromarray(picture)
        pen = _Pen(canvas)
        scale = [] if dense is None else _draw_scale(pen, dense)
        for one in reversed(objects):
            pen.box(one.box, one.color)
            ratio = canvas.width / result.result.width, canvas.height / result.result.height
            points = [(x * ratio[0], y * ratio[1], score) for x, y, score in one.found.keypoints or ()]
            draw_keypoints(pen.draw, points, self._skeleton, one.color, pen.line)
        _draw_labels(pen, objects, [*_draw_tag(pen, result), *_draw_legend(pen, rows), *scale])
        return np.asarray(canvas)

    def _draw_masks(self, picture: NDArray[np.uint8], labels: NDArray[np.uint8], shown: set[int]) -> None:
        """Draw the classes that have a region, which the background doesn't have."""
        height, width = picture.shape[:2]
        ids = np.array([i for i in np.unique(labels) if i in shown and i in self._colors], dtype=np.intp)
        if not ids.size:
            return
        masks = np.stack([_resize_mask(labels == i, width, height) for i in ids])
        detections = self._sv.Detections(xyxy=self._sv.mask_to_xyxy(masks), mask=masks, class_id=ids)
        self._masks.annotate(picture, detections)
        thickness = max(1, round(height / 480))
        self._sv.PolygonAnnotator(self._palette, thickness=thickness).annotate(picture, detections)

    def _shares(self, regions: Sequence[Region]) -> "list[_Row]":
        named = [r for r in regions if r.area >= LEGEND_AREA and r.class_id in self._colors]
        named.sort(key=lambda region: -region.area)
        return [_Row(self._colors[r.class_id], r.name, _percent(r.area) if r.area >= 0.01 else "<1 %") for r in named]

    def _objects(self, result: Result, height: int, width: int) -> "list[_Object]":
        """Return the objects to draw on a picture of this size, the most confident first."""
        across, down = width / result.width, height / result.height
        objects = []
        for found in result.detections or ():
            if found.class_id not in self._colors or found.confidence < self._confidence:
                continue
            x1, y1, x2, y2 = found.xyxy
            left, top = round(x1 * across), round(y1 * down)
            right, bottom = max(left + 1, round(x2 * across)), max(top + 1, round(y2 * down))
            box = _Area(max(left, 0), max(top, 0), min(right, width), min(bottom, height))
            if box.left < box.right and box.top < box.bottom:
                track = "" if found.track_id is None else f" #{found.track_id}"
                label = f"{found.name}{track} {_percent(found.confidence)}"
                objects.append(_Object(box, found, self._colors[found.class_id], label))
        return objects


@dataclass(frozen=True, slots=True)
class _Area:
    """A rectangle of the picture that covers left <= x < right and top <= y < bottom."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def sized(cls, left: int, top: int, width: int, height: int) -> "_Area":
        return cls(left, top, left + width, top + height)

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """The coordinates of the first and of the last pixel, as Pillow expects them."""
        return self.left, self.top, self.right - 1, self.bottom - 1

    def overlaps(self, other: "_Area") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, width: int, height: int) -> bool:
        return self.left >= 0 and self.right <= width and self.top >= 0 and self.bottom <= height


@dataclass(frozen=True, slots=True)
class _Object:
    """A box to draw."""

    box: _Area
    found: Detection
    color: Color
    label: str

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.found.name


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the legend."""

    color: Color
    name: str
    figure: str


class _Pen:
    """A pen whose sizes suit the picture. Its lengths are in pixels."""

    def __init__(self, canvas: Image.Image) -> None:
        self.canvas = canvas
        side = min(canvas.size)
        self.size = round(7 + 0.022 * side)  # of text
        self.pad = max(4, round(self.size * 0.5))
        self.margin = self.pad + 2
        self.line = max(2, round(side / 270))
        self.draw = ImageDraw.Draw(canvas, "RGBA")
        self._font = ImageFont.load_default(self.size)

    def width(self, text: str) -> int:
        return round(self._font.getlength(text))

    def panel(self, area: _Area, color: tuple[int, int, int, int], radius: int | None = None) -> None:
        self.draw.rounded_rectangle(area.corners, self.pad if radius is None else radius, fill=color)

    def write(self, x: int, middle: int, text: str, ink: Color, anchor: str = "lm") -> None:
        self.draw.text((x, middle), text, fill=ink, font=self._font, anchor=anchor)

    def box(self, area: _Area, color: Color) -> None:
        """Draw a line along the inside of the area, with a casing on both sides."""
        casing = self.line // 2
        left, top, right, bottom = area.corners
        outer = (left - casing, top - casing, right + casing, bottom + casing)
        self.draw.rectangle(outer, outline=CASING, width=self.line + 2 * casing)
        self.draw.rectangle(area.corners, outline=color, width=self.line)


def _draw_tag(pen: _Pen, result: ProcessedFrame) -> list[_Area]:
    """Write KEY, or the age of the key frame, and the latency. Return the areas that they cover."""
    is_key = result.kind == "key"
    mark = "KEY" if is_key else f"+{result.key_age}"
    height = round(pen.size * 1.5)
    middle = pen.margin + height // 2
    # At least as wide as KEY, so that the latency keeps its place from frame to frame.
    width = 2 * pen.pad + max(pen.width("KEY"), pen.width(mark))
    covered = [_Area.sized(pen.margin, pen.margin, width, height)]
    pen.panel(covered[0], KEY_PANEL if is_key else PANEL)
    pen.write(pen.margin + width // 2, middle, mark, KEY_INK if is_key else INK, anchor="mm")
    if result.latency is not None:
        latency = f"{result.latency * 1000:.0f} ms"
        left = covered[0].right + pen.pad // 2
        width = 2 * pen.pad + max(pen.width("000 ms"), pen.width(latency))
        covered.append(_Area.sized(left, pen.margin, width, height))
        pen.panel(covered[1], PANEL)
        pen.write(covered[1].right - pen.pad, middle, latency, INK, anchor="rm")
    return covered


def _draw_legend(pen: _Pen, rows: Sequence[_Row]) -> list[_Area]:
    """Write the first rows. Return the areas that they cover."""
    rows = rows[:LEGEND_ROWS]
    if not rows:
        return []
    swatch = round(pen.size * 0.8)
    row_height = round(pen.size * 1.5)
    gap = pen.pad
    width = 6 * gap + swatch + max(pen.width(row.name) for row in rows) + max(pen.width(row.figure) for row in rows)
    height = row_height * len(rows) + gap
    covered = _Area.sized(pen.margin, pen.canvas.height - pen.margin - height, width, height)
    pen.panel(covered, PANEL)
    left, right = covered.left + round(1.5 * gap), covered.right - round(1.5 * gap)
    for line, row in enumerate(rows):
        middle = covered.top + gap // 2 + row_height * line + row_height // 2
        pen.panel(_Area.sized(left, middle - swatch // 2, swatch, swatch), (*row.color, 255), swatch // 4)
        pen.write(left + swatch + gap, middle, row.name, INK)
        pen.write(right, middle, row.figure, DIM_INK, anchor="rm")
    return [covered]


def _tint(picture: NDArray[np.uint8], values: NDArray[np.float32], dense: Dense) -> NDArray[np.uint8]:
    """Return the picture with a dense map's colours over it."""
    height, width = picture.shape[:2]
    smooth = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    colors = colorize(np.asarray(smooth), dense.minimum, dense.maximum)
    grey = picture.mean(axis=2, keepdims=True, dtype=np.float32)  # colours of the picture would be taken for the map's
    return np.asarray(VALUE_OPACITY * colors + (1 - VALUE_OPACITY) * grey).astype(np.uint8)


def _draw_scale(pen: _Pen, dense: Dense) -> list[_Area]:
    """Draw the colours of a dense map, with what its numbers are. Return the areas that they cover."""
    title = dense.quantity if dense.unit is None else f"{dense.quantity} ({dense.unit})"
    first, last = f"{dense.minimum:.3g}", f"{dense.maximum:.3g}"
    row_height, gap = round(pen.size * 1.5), pen.pad
    bar_width = max(pen.width(title), pen.width(first) + pen.width(last) + 2 * gap, 8 * pen.size)
    bar_height = round(pen.size * 0.6)
    height = 2 * row_height + bar_height + gap
    covered = _Area.sized(pen.margin, pen.canvas.height - pen.margin - height, bar_width + 3 * gap, height)
    pen.panel(covered, PANEL)
    left, top = covered.left + round(1.5 * gap), covered.top + gap // 2
    right = left + bar_width
    pen.write(left, top + row_height // 2, title, INK)
    bar = Image.fromarray(PALETTE[np.newaxis]).resize((bar_width, bar_height), Image.Resampling.BILINEAR)
    pen.canvas.paste(bar, (left, top + row_height))
    middle = top + row_height + bar_height + row_height // 2
    pen.write(left, middle, first, DIM_INK)
    pen.write(right, middle, last, DIM_INK, anchor="rm")
    return [covered]


def _draw_labels(pen: _Pen, objects: Sequence[_Object], taken: Sequence[_Area]) -> None:
    """Write labels next to their boxes, in the order of the objects, if there is room for them."""
    written = list(taken)
    height = round(pen.size * 1.35)
    for one in objects:
        width = pen.width(one.label) + pen.pad + 2 * pen.line
        place = _find_place(one.box, width, height, pen.canvas, written)
        if place is None:
            continue
        written.append(place)
        pen.panel(place, PANEL, 0)
        on_left = place.left == one.box.left
        pole = place.left if on_left else place.right - pen.line
        pen.panel(_Area.sized(pole, place.top, pen.line, height), (*one.color, 255), 0)
        centre = (place.left + place.right + (pen.line if on_left else -pen.line)) // 2
        pen.write(centre, place.top + height // 2, one.label, INK, anchor="mm")


def _find_place(box: _Area, width: int, height: int, canvas: Image.Image, written: Iterable[_Area]) -> _Area | None:
    """Find room for a label: above its box, inside at its top or bottom, or below. Return None if there is none."""
    for top in (box.top - height, box.top, box.bottom - height, box.bottom):
        for left in (box.left, box.right - width):
            place = _Area.sized(left, top, width, height)
            if place.within(*canvas.size) and not any(place.overlaps(other) for other in written):
                return place
    return None


def _counts(objects: Sequence[_Object]) -> list[_Row]:
    counts = Counter((one.found.class_id, one.name, one.color) for one in objects)
    # Classes with equal counts are in the order of their ids, so that they keep their places from frame to frame.
    ranked = sorted(counts.items(), key=lambda counted: (-counted[1], counted[0]))
    return [_Row(color, name, str(count)) for (_, name, color), count in ranked]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _resize_mask(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    if mask.shape == (height, width):
        return mask
    # Bilinear scaling and a threshold give smooth edges, without steps.
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(grey) >= 128
