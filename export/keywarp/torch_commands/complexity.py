"""`keywarp complexity`: the operations and parameters of the networks."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from keywarp.torch_commands.errors import importing
from keywarp.torch_commands.options import JsonOption

if TYPE_CHECKING:
    from keywarp.networks.complexity import Complexity, ComplexityRatio

INTERVALS = (5, 10)  # frames; the paper's key intervals for segmentation and detection


def complexity(
    height: Annotated[int, typer.Option(min=1, help="Height of the image in pixels.")] = 600,
    width: Annotated[int, typer.Option(min=1, help="Width of the image in pixels.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Count the operations and parameters of the paper's networks, and compare with the paper's Table 2.

    Example: keywarp complexity --height 600 --width 1000
    """
    with importing("counting"):
        from keywarp.networks.complexity import COUNTING_RULES, PAPER_SIZE, measure_networks, table_2

    networks, table = measure_networks(height, width), table_2(height, width)
    if as_json:
        figures = {
            "table2": {features: {flow: _entry(pair) for flow, pair in row.items()} for features, row in table.items()},
            "networks": {
                name: {"operations": c.operations, "parameters": c.parameters} for name, c in networks.items()
            },
            "counted": COUNTING_RULES,
            "height": height,
            "width": width,
        }
        typer.echo(json.dumps(figures, indent=2))
        return
    _print_costs(networks, height, width)
    for features, row in table.items():
        _print_ratios(features, row)
    typer.echo(COUNTING_RULES)
    if (height, width) != PAPER_SIZE:
        typer.echo(
            "Compare with the paper's ratios at {}x{}, since its images have short sides of 600.".format(*PAPER_SIZE)
        )


def _entry(pair: "ComplexityRatio") -> dict[str, object]:
    return {
        "ratio": pair.ratio,
        "paper": pair.paper,
        "difference_percent": 100 * pair.difference,
        "ratio_without_scale": pair.ratio_without_scale,
        "speed_up": {str(interval): pair.speed_up(interval) for interval in INTERVALS},
    }


def _print_costs(networks: "dict[str, Complexity]", height: int, width: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("network", title=f"One image of {height}x{width}")
    for column in ("GFLOP", "million parameters"):
        table.add_column(column, justify="right")
    for name, cost in networks.items():
        table.add_row(name, f"{cost.operations / 1e9:.2f}", f"{cost.parameters / 1e6:.2f}")
    Console().print(table)


def _print_ratios(features: str, row: "dict[str, ComplexityRatio]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("flow network", title=f"{features} to flow network (Table 2), and speed-up (Eq. 7)")
    speed_ups = [f"speed-up\nl = {interval}" for interval in INTERVALS]
    for column in ("ratio", "paper", "differs", "without\nscale", *speed_ups):
        table.add_column(column, justify="right")
    for flow, pair in row.items():
        ratios = (
            f"{pair.ratio:.2f}",
            f"{pair.paper:.2f}",
            f"{pair.difference:+.1%}",
            f"{pair.ratio_without_scale:.2f}",
        )
        table.add_row(flow, *ratios, *(f"{pair.speed_up(interval):.2f}" for interval in INTERVALS))
    Console().print(table)
