"""Appending to files that others read meanwhile."""

import os
from pathlib import Path


def append(path: Path, content: bytes) -> None:
    """Append all of it, or nothing; folders that aren't there are made.

    Raises:
        OSError: Nothing was appended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(before)  # nothing half, and nothing twice when it is tried again
            raise
