"""The `keywarp` command, and the parts of it that the commands of other packages share."""

from keywarp.cli.errors import CommandError
from keywarp.cli.files import part_file
from keywarp.cli.report import record
from keywarp.cli.summary import Summary, summary_table

__all__ = ["CommandError", "Summary", "part_file", "record", "summary_table"]
