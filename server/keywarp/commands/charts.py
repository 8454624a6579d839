"""Draw line charts with Pillow, which is always installed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

INK: Color = (38, 44, 52)
FAINT: Color = (226, 229, 233)
PAPER: Color = (255, 255, 255)
DIM: Color = (110, 118, 128)

SCALE = 2  # pixels of the canvas per pixel of the picture, for smooth lines
WIDTH, HEIGHT = 830, 520  # of one chart, pixels
LEFT, RIGHT, TOP, BOTTOM = 62, 240, 58, 58  # margins, pixels; labels of the lines stand on the right


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]  # x, y
    color: Color
    dashed: bool = False
    joined: bool = True  # whether the points are joined; if not, they are drawn as squares
    listed: bool = True  # whether the legend names it


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over two axes."""

    title: str
    x_title: str
    y_title: str
    lines: Sequence[Line]
    level: float | None = None  # y of a dotted line
    level_name: str = ""
    whole_x: bool = False  # whether only whole numbers make sense on the x axis
    legend: bool = False  # whether the lines' names stand in a list, and not at the lines' ends


def draw_charts(charts: Sequence[Chart]) -> Image.Image:
    """Draw charts beside each other."""
    canvas = Image.new("RGB", (WIDTH * SCALE * len(charts), HEIGHT * SCALE), PAPER)
    for number, chart in enumerate(charts):
        _Plot(canvas, WIDTH * number, chart).draw()
    return canvas.resize((canvas.width // SCALE, canvas.height // SCALE), Image.Resampling.LANCZOS)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers from `low` to `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * n, 10) for n in range(first, last + 1)]


class Pen:
    """Draws on a canvas that is `SCALE` times as large as the picture. Positions are in pixels of the picture."""

    def __init__(self, canvas: Image.Image) -> None:
        self._draw = ImageDraw.Draw(canvas)

    def line(self, start: tuple[float, float], end: tuple[float, float], color: Color, width: float) -> None:
        """Draw a line, `width` pixels wide."""
        self._draw.line([SCALE * v for v in (*start, *end)], fill=color, width=max(1, round(SCALE * width)))

    def rectangle(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """Fill a rectangle."""
        self._draw.rectangle([SCALE * v for v in (left, top, right, bottom)], fill=color)

    def dot(self, x: float, y: float, size: float, fill: Color, outline: Color) -> None:
        """Draw a circle of a radius."""
        box = [SCALE * v for v in (x - size, y - size, x + size, y + size)]
        self._draw.ellipse(box, fill=fill, outline=outline, width=3)

    def text(self, x: float, y: float, text: str, color: Color, anchor: str, size: int = 13) -> None:
        """Write a text. `anchor` is Pillow's, such as `lm` for the middle of the left side."""
        font = ImageFont.load_default(SCALE * size)
        self._draw.text((SCALE * x, SCALE * y), text, fill=color, font=font, anchor=anchor)


class _Plot:
    """One chart on the canvas. Positions are in pixels of the picture."""

    def __init__(self, canvas: Image.Image, left: int, chart: Chart) -> None:
        self._pen = Pen(canvas)
        self._chart = chart
        self._left, self._right = left + LEFT, left + WIDTH - RIGHT
        self._top, self._bottom = TOP, HEIGHT - BOTTOM
        points = [point for line in chart.lines for point in line.points] or [(0.0, 0.0), (1.0, 1.0)]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        ys += [] if chart.level is None else [chart.level]
        self._x0, self._x1 = self._bounds(xs, 0.0 if not chart.whole_x else None)
        low, high = min(ys), max(ys)
        margin = max((high - low) * 0.05, 0.005)
        self._y0, self._y1 = max(low - margin, 0.0), min(high + margin, 1.0) if high <= 1 else high + margin

    def _bounds(self, values: list[float], low: float | None) -> tuple[float, float]:
        first, last = min(values) if low is None else low, max(values)
        margin = (last - first) * 0.04 or 1.0
        return (first - margin if low is None else low), last + margin

    def draw(self) -> None:
        self._axes()
        if self._chart.level is not None:
            y = self._y(self._chart.level)
            self._dashes([(self._left, y), (self._right, y)], DIM, 1, dash=3)
            self._pen.text(self._left + 6, y + 2, self._chart.level_name, DIM, "lt", 12)
        for line in self._chart.lines:
            points = [(self._x(x), self._y(y)) for x, y in line.points]
            if line.joined:
                self._dashes(points, line.color, 2.2, dash=7 if line.dashed else None)
            for x, y in points:
                self._mark(x, y, line)
        if self._chart.legend:
            self._legend()
        else:
            self._labels()

    def _axes(self) -> None:
        chart = self._chart
        for y in ticks(self._y0, self._y1, 6):
            self._pen.line((self._left, self._y(y)), (self._right, self._y(y)), FAINT, 1)
            self._pen.text(self._left - 8, self._y(y), f"{y:.3g}" if y < 10 else f"{y:g}", INK, "rm")
        spots = ticks(self._x0, self._x1, 9)
        for x in [x for x in spots if not chart.whole_x or x == int(x)]:
            self._pen.line((self._x(x), self._bottom), (self._x(x), self._bottom + 5), INK, 1)
            self._pen.text(self._x(x), self._bottom + 9, f"{x:g}", INK, "mt")
        self._pen.line((self._left, self._bottom), (self._right, self._bottom), INK, 1.2)
        self._pen.line((self._left, self._top), (self._left, self._bottom), INK, 1.2)
        self._pen.text((self._left + self._right) / 2, HEIGHT - 22, chart.x_title, INK, "mm")
        self._pen.text(self._left - LEFT + 14, 18, chart.title, INK, "lm", 18)
        self._pen.text(self._left - LEFT + 14, 41, chart.y_title, DIM, "lm", 13)

    def _labels(self) -> None:
        """Write the lines' names at their ends, one below the other."""
        ends = [(self._y(line.points[-1][1]), line) for line in self._chart.lines if line.points]
        ends.sort(key=lambda end: end[0])
        places: list[float] = []
        for y, _ in ends:
            places.append(max(y, places[-1] + 17 if places else y))
        limit = float(self._bottom)
        for number in reversed(range(len(places))):  # those that would stand below the axis move up
            places[number] = min(places[number], limit)
            limit = places[number] - 17
        for (y, line), place in zip(ends, places, strict=True):
            x = self._x(line.points[-1][0])
            self._pen.line((x + 5, y), (self._right + 14, place), line.color, 0.7)
            self._pen.text(self._right + 18, place, line.name, line.color, "lm", 14)

    def _legend(self) -> None:
        for number, line in enumerate(line for line in self._chart.lines if line.listed):
            x, y = self._right + 16.0, self._top + 20.0 * number
            if line.joined:
                self._dashes([(x, y), (x + 26, y)], line.color, 2.2, dash=5 if line.dashed else None)
            self._mark(x + 13, y, line)
            self._pen.text(x + 34, y, line.name, line.color, "lm", 14)

    def _mark(self, x: float, y: float, line: Line) -> None:
        size = 3.4 if line.joined else 4.2
        if line.joined:
            self._pen.dot(x, y, size, PAPER if line.dashed else line.color, line.color)
        else:
            self._pen.rectangle(x - size, y - size, x + size, y + size, line.color)

    def _dashes(self, points: list[tuple[float, float]], color: Color, width: float, dash: float | None) -> None:
        for (x0, y0), (x1, y1) in pairwise(points):
            if dash is None:
                self._pen.line((x0, y0), (x1, y1), color, width)
                continue
            length = math.hypot(x1 - x0, y1 - y0)
            for n in range(math.ceil(length / (2 * dash))):
                a, b = 2 * n * dash / length, min((2 * n + 1) * dash / length, 1.0)
                self._pen.line(
                    (x0 + a * (x1 - x0), y0 + a * (y1 - y0)), (x0 + b * (x1 - x0), y0 + b * (y1 - y0)), color, width
                )

    def _x(self, value: float) -> float:
        return self._left + (value - self._x0) / (self._x1 - self._x0) * (self._right - self._left)

    def _y(self, value: float) -> float:
        return self._bottom - (value - self._y0) / (self._y1 - self._y0) * (self._bottom - self._top)
