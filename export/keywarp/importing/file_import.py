"""A model file imported in a process of its own, so that a hostile or huge one can't do harm."""

from collections.abc import Sequence
from pathlib import Path

from keywarp.engines import Manifest
from keywarp.importing.bounded import Progress, run_bounded
from keywarp.importing.draft import Frame, ImportOptions, draft_bundle
from keywarp.importing.model_file import MAX_SECONDS, usual_memory


def import_file(
    file: Path,
    options: ImportOptions,
    frames: Sequence[Frame],
    folder: Path | None,
    *,
    others: Sequence[Frame] = (),
    memory: int | None = None,
    seconds: float = MAX_SECONDS,
    progress: Progress = lambda _: None,
) -> Manifest | None:
    """Make a bundle of a model file in a process of its own, with bounds on memory and time.

    Args:
        file: The file.
        options: What the user says.
        frames: Two or more consecutive frames to measure on, uint8 (H, W, 3) in RGB. The first and last are checked on.
        folder: The bundle's folder, in which an older one is replaced. By default nothing is checked and written.
        others: More frames to check on.
        memory: The most memory of the process, in bytes. It is enforced on Linux. By default it is 8.6 GB, and 16 times
            the file's size.
        seconds: The most time of each step, of which there are about a dozen.
        progress: Is told what begins (a string), then what was found out (`Findings`), and of each check (`Check`).

    Returns:
        The bundle's manifest, or None without a folder.

    Raises:
        ImportingError: If the file can't be imported, a check fails, or memory or time don't suffice.
        keywarp.engines.EngineError: If its graphs can't be run.
        OSError: If the folder can't be written to.
    """
    return run_bounded(
        _import,
        file,
        options,
        list(frames),
        folder,
        list(others),
        memory=usual_memory(file) if memory is None else memory,
        seconds=seconds,
        progress=progress,
    )


def _import(
    file: Path,
    options: ImportOptions,
    frames: Sequence[Frame],
    folder: Path | None,
    others: Sequence[Frame],
    *,
    progress: Progress,
) -> Manifest | None:
    draft = draft_bundle(file, options, frames, progress)
    progress(draft.findings)
    if folder is None:
        return None
    progress("checking the bundle")
    for check in draft.check([frames[0], frames[-1], *others]):
        progress(check)
    progress("writing the bundle")
    return draft.write(folder).manifest
