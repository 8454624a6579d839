"""Files that have their name only when they are complete."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keywarp.cli.errors import CommandError


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """Give a temporary name, `NAME.part`, to write to; rename it to `path` when the block ends well.

    A block that is broken off leaves the `.part` file, and says so on stderr.

    Raises:
        CommandError: The file can't be written.
    """
    part = path.with_name(path.name + ".part")
    with writing(path):
        part.write_bytes(b"")
    try:
        with writing(path):
            yield part
    except BaseException:
        if part.stat().st_size:
            print(f"keywarp: what was done so far is in {part}", file=sys.stderr)
        else:
            part.unlink()
        raise
    part.replace(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Blame a file for what the system says against the block, such as that the disk is full.

    Raises:
        CommandError: It says something.
    """
    try:
        yield
    except OSError as error:
        raise CommandError(f"{str(path)!r} can't be written: {error.strerror or error}") from error
