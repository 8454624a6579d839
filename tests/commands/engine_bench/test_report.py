"""The report says what a reader has to know beside the figures, and the chart is drawn to scale."""

import io
from typing import Any

import numpy as np
from rich.console import Console

from keywarp.commands.bar_charts import Bar, BarChart, draw_bar_chart
from keywarp.commands.engine_bench.comparison import Result
from keywarp.commands.engine_bench.machine import describe_machine
from keywarp.commands.engine_bench.report import print_tables

RED, BLUE = (255, 0, 0), (0, 0, 255)


def printed(**fields: Any) -> str:
    nothing: dict[str, Any] = {"peaks": {}, "frames": [], "keywarp": [], "operations": {}, "left_out": {}}
    known: dict[str, Any] = {"interrupted": False, "other_work": 0.0, "rounds": 1, "threads": 0, "size": (60, 100)}
    result = Result(config="tiny", machine=describe_machine(), **(nothing | known | fields))
    console = Console(file=io.StringIO(), width=120)
    print_tables(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_other_work_is_said_to_disturb() -> None:
    assert "Other programs took 1.3 cores meanwhile: measure again on a quiet machine." in printed(other_work=1.34)
    for quiet in (0.1, None):
        assert "Other programs" not in printed(other_work=quiet)


def test_what_is_missing_is_said() -> None:
    assert "Interrupted: these are the figures up to then." in printed(interrupted=True)
    assert "nano int8 is left out: no such file" in printed(left_out={"nano int8": "no such file"})
    assert "medians of 1 round in turns" in printed()


def test_bars_are_as_long_as_their_values() -> None:
    bars = [Bar("long", 100.0, "100 ms", RED), Bar("short", 25.0, "25 ms", BLUE, begins=True)]
    picture = np.asarray(draw_bar_chart(BarChart("title", "subtitle", "ms", "note", bars)))
    lengths = [(picture == color).all(axis=-1).sum(axis=1).max() for color in (RED, BLUE)]
    assert abs(lengths[0] / lengths[1] - 4) < 0.1
