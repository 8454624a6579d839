"""Append to files that other programs read at the same time."""

import os
from pathlib import Path


def append_atomically(path: Path, content: bytes) -> None:
    """Append the whole content to a file, or nothing of it. Missing folders are created.

    Args:
        path: The file, which is created if it is missing.
        content: The bytes to append.

    Raises:
        OSError: If the content can't be written. The file is then as long as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(before)  # a retry must neither follow half a line nor repeat one
            raise
