"""The `keywarp` command in this process, which spares the seconds that imports take."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from keywarp.cli.main import main


@dataclass(frozen=True)
class Completed:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str


def keywarp(*arguments: str | Path) -> Completed:
    """Run a command line as a shell would, and return its exit status and what it printed."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", ["keywarp", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stopped:
            status = int(stopped.code or 0)
    return Completed(status, out.getvalue(), err.getvalue())
