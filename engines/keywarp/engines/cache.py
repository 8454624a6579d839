"""The folder of compiled graphs, which grows with each frame size and model."""

import contextlib
import logging
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

MAX_BYTES: Final = 8 * 2**30


def prune(folder: Path, most: int = MAX_BYTES) -> None:
    """Delete the files of a folder that were written longest ago, until the rest has at most so many bytes.

    What is deleted is compiled again when it is needed.
    """
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # deleted meanwhile
            if path.is_file():
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
    size = sum(size for _, size, _ in found)
    for _, bytes_, path in sorted(found, key=lambda entry: entry[0]):
        if size <= most:
            return
        log.info("the cache of compiled graphs is larger than %d bytes: deleting %s", most, path.name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # a cache that can only be read
            log.warning("%s can't be deleted: %s", path.name, error)
            return
        size -= bytes_
