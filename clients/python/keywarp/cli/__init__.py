"""The `keywarp` command, and what other packages' commands share with it."""

from keywarp.cli.errors import CommandError
from keywarp.cli.partial import partial
from keywarp.cli.report import record
from keywarp.cli.summary import Summary, summary_table

__all__ = ["CommandError", "Summary", "partial", "record", "summary_table"]
