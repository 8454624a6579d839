"""The `keywarp` command as a user types it, run in this process."""

import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from keywarp.cli.main import main


def keywarp(*arguments: str | Path) -> CompletedProcess[str]:
    """Run `keywarp` with these arguments.

    Returns:
        Its exit status, and what it wrote to stdout and stderr.
    """
    command = ["keywarp", *map(str, arguments)]
    status: str | int | None = 0
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", command):
        try:
            main()
        except SystemExit as end:
            status = end.code
    assert status is None or isinstance(status, int)
    return CompletedProcess(command, status or 0, out.getvalue(), err.getvalue())
