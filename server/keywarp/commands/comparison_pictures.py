"""Draw the pictures of a comparison: agreement over age and over cost, and the worst frames."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from keywarp.commands.charts import Chart, Color, Line, draw_charts
from keywarp.commands.dense_pictures import draw_value_difference, draw_values
from keywarp.engines import DenseMap, Detections, LabelMap, Manifest, Output
from keywarp.engines.comparison import Comparison, Measure, Passage, Replay, match_objects
from keywarp.engines.manifest import ManifestClass
from keywarp.engines.motion import MotionSource

# A motion source's colour follows its flow, and the line is dashed if the scale field is used.
GREY: Color = (128, 128, 128)
BLACK: Color = (38, 44, 52)
COLORS: dict[str, Color] = {
    "none": GREY,
    "none-repaired": (64, 64, 64),
    "flow": (0, 114, 178),
    "flow-repaired": (0, 62, 120),
    "flow-chained": (86, 180, 233),
    "flow-chained-repaired": (40, 120, 160),
    "dis": (230, 159, 0),
    "dis-repaired": (204, 121, 167),
    "dis-chained": (213, 94, 0),
    "dis-chained-repaired": (150, 40, 90),
    "codec": (0, 158, 115),
    "codec-repaired": (0, 96, 70),
}

PANEL_WIDTH = 560  # of a picture in a sheet of frames, pixels
PASSAGE_WIDTH = 400  # of a picture in a sheet of a passage, pixels
CAPTION = 26  # height of a caption, pixels
GAP = 6  # between pictures, pixels
TALLEST = 2  # height of a picture by its width; taller ones become narrower
PAPER: Color = (24, 28, 34)
TEXT: Color = (236, 239, 243)
WRONG: Color = (255, 45, 45)
RIGHT: Color = (70, 220, 110)
MISSED: Color = (255, 205, 0)
OPACITY = 0.55  # of a class's colour
MASK_OPACITY = 0.3  # of an object's mask
CERTAIN = 0.5  # least confidence of the keypoints that are drawn
BACKGROUND = 0  # the class that isn't drawn, if the model has a background

_Palette = NDArray[np.uint8]  # the classes' colours, RGBA (classes, 4); the background is transparent


def agreement_charts(comparison: Comparison) -> Image.Image:
    """Draw the agreement over the key age, and over the mean cost of a frame."""
    measure = f"{comparison.measure} against per-frame results"
    by_age, by_cost = [], []
    for name, source in comparison.sources.items():
        color, dashed = _style(name)
        by_age.append(Line(name, list(source.by_age.items()), color, dashed))
        points = [(i.ms, i.agreement) for i in source.intervals.values()]
        by_cost.append(Line(name, points, color, dashed))
        scheduled = [(s.ms, s.agreement) for s in comparison.schedules if s.source == name]
        by_cost.append(Line(name, scheduled, color, joined=False, listed=False))
    if comparison.schedules:
        by_cost.append(Line("adaptive", [], GREY, joined=False))
    by_cost.append(Line("per frame", [(comparison.per_frame_ms, 1.0)], BLACK, joined=False))
    longest = max((max(s.intervals, default=1) for s in comparison.sources.values()), default=1)
    keep = f"--keep {comparison.keep:g}"
    return draw_charts(
        [
            Chart("Agreement over key age", _age_title(comparison), measure, by_age, None, "", whole_x=True),
            Chart(
                "Agreement over cost",
                f"mean ms a frame (intervals 2 to {longest}, from right to left)",
                f"{measure}, over all frames of an interval",
                by_cost,
                comparison.keep,
                keep,
                legend=True,
            ),
        ]
    )


def _age_title(comparison: Comparison) -> str:
    rates = {round(video.fps, 1) for video in comparison.videos}
    return f"key age, frames at {rates.pop():g} fps" if len(rates) == 1 else "key age, frames"


def _style(name: str) -> tuple[Color, bool]:
    source = MotionSource.parse(name)
    return COLORS.get(str(replace(source, scale=False)), BLACK), source.scale


def worst_sheet(replays: Sequence[Replay], manifest: Manifest, measure: str, confidence: float) -> Image.Image:
    """Draw results beside the per-frame results, one pair in each row.

    Args:
        replays: The results.
        manifest: The bundle's manifest.
        measure: The name of the agreement.
        confidence: The least confidence of the boxes to draw.
    """
    rows = [_row(replay, manifest, measure, confidence) for replay in replays]
    width, height = max(row.width for row in rows), sum(row.height for row in rows)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _palette(manifest: Manifest) -> _Palette:
    hidden = BACKGROUND if manifest.background else None
    colors = [(*c.color, 0 if c.id == hidden else 255) for c in manifest.classes]
    return np.array(colors, np.uint8).reshape(-1, 4)


def _row(replay: Replay, manifest: Manifest, measure: str, confidence: float) -> Image.Image:
    width = replay.image.shape[1]
    image = _shrink(replay.image, PANEL_WIDTH)
    worst, palette = replay.worst, _palette(manifest)
    titles = ["per frame", f"{replay.source}, age {worst.age} ({worst.age_seconds:.2f} s)"]
    if isinstance(replay.propagated, LabelMap) and isinstance(replay.per_frame, LabelMap):
        panels = [_draw_labels(image, result, palette) for result in (replay.per_frame, replay.propagated)]
        panels.append(_draw_difference(image, replay.per_frame, replay.propagated))
        titles.append("where they differ")
    elif isinstance(replay.propagated, DenseMap) and isinstance(replay.per_frame, DenseMap):
        panels = [draw_values(image, result, replay.per_frame) for result in (replay.per_frame, replay.propagated)]
        panels.append(draw_value_difference(image, replay.propagated, replay.per_frame))
        titles.append("where they differ by more than 5 % of the range")
    else:
        titles = ["per frame (red: missed)", f"{titles[1]} (red: per frame has none)"]
        panels = _draw_boxes(image, width, replay.per_frame, replay.propagated, confidence, manifest.classes)
    row = Image.new("RGB", (len(panels) * (PANEL_WIDTH + GAP) - GAP, image.shape[0] + CAPTION + GAP), PAPER)
    pen = ImageDraw.Draw(row)
    font = ImageFont.load_default(14)
    for number, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = number * (PANEL_WIDTH + GAP)
        row.paste(Image.fromarray(panel), (left, CAPTION))
        pen.text((left + 6, CAPTION // 2), title, fill=TEXT, font=font, anchor="lm")
    figure = f"{worst.video} {worst.time:.2f} s, {measure} {worst.agreement:.2f}"
    pen.text((row.width - 6, CAPTION // 2), figure, fill=TEXT, font=font, anchor="rm")
    return row


def passage_sheet(passage: Passage, manifest: Manifest, measure: Measure, confidence: float) -> Image.Image:
    """Draw a passage: a column for each key age, the per-frame results on top, and a row for each motion source.

    Args:
        passage: The passage.
        manifest: The bundle's manifest.
        measure: The task's measure.
        confidence: The least confidence of the boxes to draw.
    """
    ages, palette = sorted(passage.images), _palette(manifest)
    width = passage.images[ages[0]].shape[1]
    images = {age: _shrink(image, PASSAGE_WIDTH) for age, image in passage.images.items()}
    row_height = images[ages[0]].shape[0] + CAPTION
    rows = 1 + len(passage.propagated)
    sheet = Image.new("RGB", (len(ages) * (PASSAGE_WIDTH + GAP) - GAP, rows * (row_height + GAP) - GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    font, large = ImageFont.load_default(14), ImageFont.load_default(20)
    for column, age in enumerate(ages):
        left = column * (PASSAGE_WIDTH + GAP)
        image, truth = images[age], passage.per_frame[age]
        title = "per frame" if age else f"{passage.video} {passage.time:.2f} s: key frame"
        _paste(
            sheet, pen, _panel(image, width, truth, truth, confidence, palette), left, 0, f"age {age}: {title}", font
        )
        for row, (source, outputs) in enumerate(passage.propagated.items(), start=1):
            top = row * (row_height + GAP)
            if age not in outputs:
                pen.text((left + PASSAGE_WIDTH // 2, top + row_height // 2), source, fill=TEXT, font=large, anchor="mm")
                continue
            panel = _panel(image, width, truth, outputs[age], confidence, palette)
            agreement = measure.agreement(measure.count(outputs[age], truth))
            _paste(sheet, pen, panel, left, top, f"age {age}: {source}, {measure.name} {agreement:.2f}", font)
    return sheet


def _shrink(image: NDArray[np.uint8], most: int) -> NDArray[np.uint8]:
    """Return the image at a width of `most` pixels, or narrower if it would be too tall."""
    height, width = image.shape[:2]
    scale = most * min(1 / width, TALLEST / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _paste(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    panel: NDArray[np.uint8],
    left: int,
    top: int,
    title: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    sheet.paste(Image.fromarray(panel), (left, top + CAPTION))
    pen.text((left + 6, top + CAPTION // 2), title, fill=TEXT, font=font, anchor="lm")


def _panel(
    image: NDArray[np.uint8], frame_width: int, per_frame: Output, shown: Output, confidence: float, palette: _Palette
) -> NDArray[np.uint8]:
    """Draw one result: the boxes that agree, those that per frame has none like, and those that are missed."""
    if isinstance(shown, LabelMap):
        return _draw_labels(image, shown, palette)
    if isinstance(shown, DenseMap) and isinstance(per_frame, DenseMap):
        return draw_values(image, shown, per_frame)
    found, expected = _confident(shown, confidence), _confident(per_frame, confidence)
    pairs = match_objects(found, expected)
    canvas = Image.fromarray(image)
    boxes = _Boxes(canvas, image.shape[1] / frame_width)
    missed = set(range(len(expected.xyxy))) - {column for _, column in pairs}
    boxes.draw(expected, missed, MISSED)
    boxes.draw_both(found, {row for row, _ in pairs})
    return np.asarray(canvas)


def _draw_labels(image: NDArray[np.uint8], result: LabelMap, palette: _Palette) -> NDArray[np.uint8]:
    labels = _resized(result, image)
    painted = palette[labels]
    mixed = cv2.addWeighted(image, 1 - OPACITY, np.ascontiguousarray(painted[..., :3]), OPACITY, 0)
    return np.where(painted[..., 3:] == 0, image, np.asarray(mixed, np.uint8))


def _draw_difference(image: NDArray[np.uint8], first: LabelMap, second: LabelMap) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    dark = (np.asarray(grey, np.float32) * 0.6).astype(np.uint8)
    differs = _resized(first, image) != _resized(second, image)
    return np.where(differs[..., None], np.array(WRONG, np.uint8), dark)


def _resized(result: LabelMap, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    return np.asarray(cv2.resize(result.labels, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _draw_boxes(
    image: NDArray[np.uint8],
    frame_width: int,
    per_frame: Output,
    propagated: Output,
    confidence: float,
    classes: Sequence[ManifestClass],
) -> list[NDArray[np.uint8]]:
    """Draw both results: green boxes agree, red ones are missing on the other side and have names."""
    found, expected = _confident(propagated, confidence), _confident(per_frame, confidence)
    pairs = match_objects(found, expected)
    sides = ((expected, {column for _, column in pairs}), (found, {row for row, _ in pairs}))
    panels = []
    for result, matched in sides:
        canvas = Image.fromarray(image)
        boxes = _Boxes(canvas, image.shape[1] / frame_width)
        boxes.draw_both(result, matched)
        boxes.name(result, set(range(len(result.xyxy))) - matched, classes)
        panels.append(np.asarray(canvas))
    return panels


def _confident(result: Output, confidence: float) -> Detections:
    assert isinstance(result, Detections)
    return result.take(np.flatnonzero(result.confidence >= confidence))


class _Boxes:
    """Draws boxes, masks and keypoints on a picture that is smaller than its frame by a factor."""

    def __init__(self, canvas: Image.Image, scale: float) -> None:
        self._canvas = canvas
        self._pen = ImageDraw.Draw(canvas)
        self._scale = scale

    def draw_both(self, result: Detections, matched: set[int]) -> None:
        """Draw the boxes that agree, and in front of them the others."""
        self.draw(result, matched, RIGHT)
        self.draw(result, set(range(len(result.xyxy))) - matched, WRONG)

    def draw(self, result: Detections, numbers: set[int], color: Color) -> None:
        if result.masks is not None:
            masks = result.masks.take(sorted(numbers)).resize(self._canvas.height, self._canvas.width)
            for (x, y), window in zip(masks.corners.tolist(), masks.windows, strict=True):
                tint = (window * (255 * MASK_OPACITY)).astype(np.uint8)
                if tint.size:
                    self._canvas.paste(color, (x, y), Image.fromarray(tint))
        for number in sorted(numbers):
            for x, y, confidence in [] if result.keypoints is None else result.keypoints[number].tolist():
                if confidence >= CERTAIN:
                    self._pen.circle((x * self._scale, y * self._scale), 2, fill=color)
            left, top, right, bottom = self._corners(result, number)
            self._pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=2)

    def name(self, result: Detections, numbers: set[int], classes: Sequence[ManifestClass]) -> None:
        font = ImageFont.load_default(12)
        for number in sorted(numbers):
            left, top, _, _ = self._corners(result, number)
            place = (left, max(top - 13, 0))
            text = f"{classes[result.class_id[number]].name} {result.confidence[number]:.2f}"
            self._pen.rectangle(self._pen.textbbox(place, text, font=font), fill=PAPER)
            self._pen.text(place, text, fill=WRONG, font=font)

    def _corners(self, result: Detections, number: int) -> tuple[int, int, int, int]:
        left, top, right, bottom = (round(float(v) * self._scale) for v in result.xyxy[number])
        return left, top, right, bottom
