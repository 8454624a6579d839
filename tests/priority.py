"""The priority of the tests' own process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def priority_kept() -> Iterator[None]:
    """Give the process its usual priority again when the block ends.

    The encoder SVT-AV1 makes the whole process a real-time one if it runs as root. Processes that it starts would be
    so, too, and on a machine with few cores they would keep all others from running.
    """
    try:
        yield
    finally:
        if sys.platform == "linux":
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
