"""Compares the shipped flow network with DIS, SPyNet and no motion: end-point and photometric errors, and time.

All see half-size images, and are measured as they are used, by the mean flow of each cell of a feature map. The flow
network wasn't trained on the generated pairs and the parts of the clips. Packages are fetched when missing.

Example: python bench/flow.py --json
"""

import argparse
import json
from pathlib import Path

from keywarp.experiments.flow import Size, compare_flows
from keywarp.networks.flow_weights import SHIPPED
from keywarp.training.console import ConsoleReporter

CACHE = Path(__file__).parents[1] / ".cache" / "keywarp" / "packages"


def main() -> None:
    """Print the tables or the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="weights that keywarp train-flow wrote")
    parser.add_argument("--packages", type=Path, default=CACHE, help="folder that keeps fetched packages")
    parser.add_argument("--out", type=Path, help="also write flow.json, flow.md and flow.png into this folder")
    parser.add_argument("--quick", action="store_true", help="a few pairs only, to see that it runs")
    arguments = parser.parse_args()

    with ConsoleReporter() as reporter:
        size = Size(2, 1, 2) if arguments.quick else Size()
        report = compare_flows(arguments.packages, arguments.weights, reporter, size)
    if arguments.out:
        report.write(arguments.out)
    print(json.dumps(report.figures) if arguments.json else "\n\n".join(report.text))


if __name__ == "__main__":
    main()
