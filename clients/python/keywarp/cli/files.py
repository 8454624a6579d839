"""Write files under a temporary name until they are complete."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keywarp.cli.errors import CommandError


@contextmanager
def part_file(path: Path) -> Iterator[Path]:
    """Create the file `NAME.part` to write to, and rename it to `path` when the block has succeeded.

    If the block fails, a `.part` file with content stays, and a message on stderr names it.

    Args:
        path: The path of the complete file.

    Yields:
        The path of the `.part` file.

    Raises:
        CommandError: If the file can't be written.
    """
    part = path.with_name(path.name + ".part")
    with write_errors(path):
        part.write_bytes(b"")
    try:
        with write_errors(path):
            yield part
    except BaseException:
        if part.stat().st_size:
            print(f"keywarp: the unfinished output is in {part}", file=sys.stderr)
        else:
            part.unlink()
        raise
    part.replace(path)


def check_writable(folder: Path) -> None:
    """Check that files can be written to a folder, before the work that they come from. Nothing is created.

    Args:
        folder: The folder, which needn't exist.

    Raises:
        CommandError: If it can't be written to or created.
    """
    with write_errors(folder):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        tempfile.TemporaryFile(dir=existing).close()


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an error of the operating system in the block into one that names the file.

    Raises:
        CommandError: If the file can't be written, for example because the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise CommandError(f"{str(path)!r} can't be written: {error.strerror or error}") from error
