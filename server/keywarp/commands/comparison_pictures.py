"""Draw the pictures of a comparison: agreement over age and over cost, and the worst frames."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from keywarp.commands.charts import Chart, Color, Line, draw_charts
from keywarp.engines import Detections, LabelMap, Output
from keywarp.engines.comparison import Comparison, Replay, match_boxes
from keywarp.engines.manifest import ManifestClass

# A motion source's colour follows its flow, and the line is dashed if the scale field is used.
COLORS: dict[str, Color] = {
    "none": (128, 128, 128),
    "flow": (0, 114, 178),
    "network": (0, 114, 178),
    "flow-chained": (86, 180, 233),
    "network-chained": (86, 180, 233),
    "dis": (230, 159, 0),
    "dis-chained": (213, 94, 0),
    "codec": (0, 158, 115),
}
FURTHER: tuple[Color, ...] = ((204, 121, 167), (120, 94, 40), (70, 70, 160))

PANEL_WIDTH = 480  # of a picture in a sheet of frames, pixels
CAPTION = 26  # height of a caption, pixels
GAP = 6  # between pictures, pixels
PAPER: Color = (24, 28, 34)
TEXT: Color = (236, 239, 243)
WRONG: Color = (255, 45, 45)
RIGHT: Color = (70, 220, 110)
OPACITY = 0.55  # of a class's colour


def agreement_charts(comparison: Comparison) -> Image.Image:
    """Draw the agreement over the key age, and over the mean cost of a frame."""
    measure = f"{comparison.measure} against per-frame results"
    by_age, by_cost = [], []
    for number, (name, source) in enumerate(comparison.sources.items()):
        color, dashed = _style(name, number)
        by_age.append(Line(name, list(source.by_age.items()), color, dashed))
        points = [(i.ms, i.agreement) for i in source.intervals.values()]
        by_cost.append(Line(name, points, color, dashed))
        adaptive = [(s.ms, s.agreement) for s in comparison.schedules if s.source == name]
        if adaptive:
            by_cost.append(Line(f"{name}, adaptive", adaptive, color, dashed, joined=False))
    by_cost.append(Line("per frame", [(comparison.per_frame_ms, 1.0)], (38, 44, 52), joined=False))
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


def _style(name: str, number: int) -> tuple[Color, bool]:
    flow = name.removesuffix("+scale")
    color = COLORS.get(flow, FURTHER[number % len(FURTHER)])
    return color, name != flow or name.startswith("network")


def worst_sheet(
    replays: Sequence[Replay], classes: Sequence[ManifestClass], measure: str, confidence: float
) -> Image.Image:
    """Draw results beside the per-frame results, one pair in each row.

    Args:
        replays: The results.
        classes: The model's classes.
        measure: The name of the agreement.
        confidence: The least confidence of the boxes to draw.
    """
    rows = [_row(replay, classes, measure, confidence) for replay in replays]
    width, height = max(row.width for row in rows), sum(row.height for row in rows)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(replay: Replay, classes: Sequence[ManifestClass], measure: str, confidence: float) -> Image.Image:
    height, width = replay.image.shape[:2]
    size = (PANEL_WIDTH, round(height * PANEL_WIDTH / width))
    image = np.asarray(cv2.resize(replay.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    worst = replay.worst
    titles = ["per frame", f"{replay.source}, age {worst.age} ({worst.age_seconds:.2f} s)"]
    if isinstance(replay.propagated, LabelMap) and isinstance(replay.per_frame, LabelMap):
        panels = [_draw_labels(image, result, classes) for result in (replay.per_frame, replay.propagated)]
        panels.append(_draw_difference(image, replay.per_frame, replay.propagated))
        titles.append("where they differ")
    else:
        panels = list(_draw_boxes(image, width, replay.per_frame, replay.propagated, classes, confidence))
    row = Image.new("RGB", (len(panels) * (size[0] + GAP) - GAP, size[1] + CAPTION + GAP), PAPER)
    pen = ImageDraw.Draw(row)
    font = ImageFont.load_default(14)
    for number, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = number * (size[0] + GAP)
        row.paste(Image.fromarray(panel), (left, CAPTION))
        pen.text((left + 6, CAPTION // 2), title, fill=TEXT, font=font, anchor="lm")
    figure = f"{worst.video} {worst.time:.2f} s, {measure} {worst.agreement:.2f}"
    pen.text((row.width - 6, CAPTION // 2), figure, fill=TEXT, font=font, anchor="rm")
    return row


def _draw_labels(image: NDArray[np.uint8], result: LabelMap, classes: Sequence[ManifestClass]) -> NDArray[np.uint8]:
    labels = _resized(result, image)
    palette = np.array([c.color for c in classes], np.uint8)
    painted = palette[labels]
    mixed = cv2.addWeighted(image, 1 - OPACITY, painted, OPACITY, 0)
    return np.where((labels == 0)[..., None], image, np.asarray(mixed, np.uint8))


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
    classes: Sequence[ManifestClass],
    confidence: float,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw both results: green boxes agree, red ones are missing on the other side."""
    assert isinstance(per_frame, Detections)
    assert isinstance(propagated, Detections)
    found, expected = _confident(propagated, confidence), _confident(per_frame, confidence)
    pairs = match_boxes(found, expected)
    scale = image.shape[1] / frame_width
    return (
        _boxes(image, expected, {column for _, column in pairs}, scale, classes),
        _boxes(image, found, {row for row, _ in pairs}, scale, classes),
    )


def _confident(result: Detections, confidence: float) -> Detections:
    kept = result.confidence >= confidence
    return Detections(result.xyxy[kept], result.confidence[kept], result.class_id[kept])


def _boxes(
    image: NDArray[np.uint8], result: Detections, matched: set[int], scale: float, classes: Sequence[ManifestClass]
) -> NDArray[np.uint8]:
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(11)
    numbers = sorted(range(len(result.xyxy)), key=lambda n: n not in matched)  # the wrong ones in front
    for number in numbers:
        color = RIGHT if number in matched else WRONG
        left, top, right, bottom = (round(float(v) * scale) for v in result.xyxy[number])
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=2)
        if number not in matched:
            name = f"{classes[result.class_id[number]].name} {result.confidence[number]:.2f}"
            box = pen.textbbox((left, max(top - 13, 0)), name, font=font)
            pen.rectangle(box, fill=(20, 20, 20))
            pen.text((left, max(top - 13, 0)), name, fill=WRONG, font=font)
    return np.asarray(canvas)
