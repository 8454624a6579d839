"""The experiments by name.

`keywarp reproduce all` runs them in this order: first those that are quick or that others build on, last those that not
every preset supports.
"""

from collections.abc import Callable

from keywarp.choices import ExperimentName
from keywarp.experiments.adaptive import adaptive
from keywarp.experiments.curves import ages, figure3
from keywarp.experiments.motion import motion
from keywarp.experiments.pictures import figure1, figure4, figure5
from keywarp.experiments.report import Report
from keywarp.experiments.runner import Runner
from keywarp.experiments.tables import table2, table4, table5

EXPERIMENTS: dict[ExperimentName, Callable[[Runner], Report]] = {
    "table2": table2,
    "table4": table4,
    "ages": ages,
    "figure1": figure1,
    "figure4": figure4,
    "figure5": figure5,
    "figure3": figure3,
    "table5": table5,
    "motion": motion,
    "adaptive": adaptive,
}
