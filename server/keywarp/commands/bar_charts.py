"""Draw bar charts with Pillow, in the style of `charts`."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from keywarp.commands.charts import DIM, FAINT, INK, PAPER, SCALE, Color, Pen, ticks

WIDTH = 1000  # of a chart, pixels
LEFT, RIGHT, TOP, BOTTOM = 330, 130, 62, 78  # margins, pixels; names of the bars stand on the left
BAR, STEP, GAP = 17, 25, 12  # height of a bar, from one bar to the next, before a new group; pixels


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar."""

    name: str
    value: float
    text: str  # at its end
    color: Color
    begins: bool = False  # whether a new group begins with it


@dataclass(frozen=True, slots=True)
class BarChart:
    """Horizontal bars over one axis."""

    title: str
    subtitle: str
    x_title: str
    note: str  # in small letters below the axis
    bars: Sequence[Bar]


def draw_bar_chart(chart: BarChart) -> Image.Image:
    """Draw a bar chart."""
    gaps = sum(bar.begins for bar in chart.bars[1:])
    bottom = TOP + STEP * len(chart.bars) + GAP * gaps
    canvas = Image.new("RGB", (WIDTH * SCALE, (bottom + BOTTOM) * SCALE), PAPER)
    pen = Pen(canvas)
    largest = max((bar.value for bar in chart.bars), default=1.0)
    per_unit = (WIDTH - LEFT - RIGHT) / largest
    pen.text(14, 20, chart.title, INK, "lm", 18)
    pen.text(14, 44, chart.subtitle, DIM, "lm", 13)
    for tick in ticks(0, largest, 6):
        x = LEFT + per_unit * tick
        pen.line((x, TOP), (x, bottom), FAINT, 1)
        pen.text(x, bottom + 7, f"{tick:g}", INK, "mt")
    y = float(TOP)
    for number, bar in enumerate(chart.bars):
        y += GAP if bar.begins and number else 0
        middle = y + STEP / 2
        right = LEFT + max(per_unit * bar.value, 1)
        pen.text(LEFT - 10, middle, bar.name, INK, "rm", 14)
        pen.rectangle(LEFT, middle - BAR / 2, right, middle + BAR / 2, bar.color)
        pen.text(right + 6, middle, bar.text, INK, "lm", 13)
        y += STEP
    pen.line((LEFT, TOP), (LEFT, bottom), INK, 1.2)
    pen.text(LEFT + (WIDTH - LEFT - RIGHT) / 2, bottom + 34, chart.x_title, INK, "mm")
    pen.text(14, bottom + BOTTOM - 18, chart.note, DIM, "lm", 11)
    return canvas.resize((canvas.width // SCALE, canvas.height // SCALE), Image.Resampling.LANCZOS)
