"""Runs one check in this process. `python -m bench.gpu` starts it."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Final

from bench.gpu.case import Case, FailedError, SkippedError
from bench.gpu.checks import BY_NAME

SKIPPED: Final = 3  # exit statuses
FAILED: Final = 4


def main() -> None:
    """Run a check, and leave what it found in a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", choices=BY_NAME)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dry", action="store_true")
    arguments = parser.parse_args()
    check = BY_NAME[arguments.check]
    case = Case(check.name, arguments.folder, arguments.dry)
    case.record()
    try:
        importlib.import_module(f"bench.gpu.{check.module}").run(case, *check.arguments)
    except SkippedError as error:
        case.record(reason=str(error))
        sys.exit(SKIPPED)
    except FailedError as error:
        case.record(reason=str(error))
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
