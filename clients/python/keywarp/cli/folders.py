"""Process one source, or the videos of a folder: one after another, going on where an earlier run stopped."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from av.error import FFmpegError
from rich.console import Console

from keywarp.cli.errors import CommandError
from keywarp.cli.report import DamageError
from keywarp.cli.result_files import ResultFiles
from keywarp.cli.summary import Summary, print_summary, summary_table
from keywarp.client.errors import MediaError, SourceError
from keywarp.client.folders import folder_videos

STATUSES: Final = ("done", "skipped", "failed")
Process = Callable[[str, ResultFiles, str], Summary]  # the video, the files to write, and the name of the run


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a video: `skipped` if all its files were there already."""

    video: Path
    status: Literal["done", "skipped", "failed"]
    summary: Summary | None = None
    error: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON, with the figures of what was processed."""
        figures = self.summary.as_dict() if self.summary else {}
        return figures | {"video": str(self.video), "status": self.status, "error": self.error}


def find_videos(source: str) -> list[Path]:
    """List the videos of a source that is a folder of videos. Empty for every other source.

    Raises:
        SourceError: If a folder has both videos and images.
    """
    folder = Path(source)
    return folder_videos(folder) if folder.is_dir() else []


def process_one(
    source: str, files: ResultFiles, process: Callable[[str, ResultFiles], Summary], *, as_json: bool
) -> None:
    """Process one source, and print its figures, also if it is damaged.

    Args:
        source: The source.
        files: The files to write.
        process: Processes it, and returns its figures.
        as_json: Whether to print JSON.

    Raises:
        CommandError: If it is damaged, or can't be processed.
    """
    try:
        summary = process(source, files.check_files())
    except DamageError as error:
        print_summary(error.summary, as_json=as_json)
        raise CommandError(f"{error}. --allow-damage keeps what was read") from error
    print_summary(summary, as_json=as_json)


def process_videos(videos: list[Path], files: ResultFiles, process: Process, *, as_json: bool) -> None:
    """Process videos in order, and print what became of each. A broken one doesn't stop those after it.

    Those whose files are all there are skipped, so the same command again does what is left.

    Args:
        videos: The videos.
        files: The folders to write to.
        process: Processes one, and returns its figures.
        as_json: Whether to print JSON.

    Raises:
        CommandError: If some could not be processed, after all others were.
        KeywarpError: At once, if no video could be processed, for instance because the server doesn't respond.
    """
    outcomes = []
    for number, (video, its) in enumerate(files.check_folders().of_videos(videos).items(), 1):
        title = f"{video.name} ({number} of {len(videos)})"
        outcome = Outcome(video, "skipped") if its.are_complete else _process(video, its, process, title)
        if outcome.error:
            print(f"keywarp: {video.name}: {outcome.error}", file=sys.stderr)
        outcomes.append(outcome)
    count = Counter(outcome.status for outcome in outcomes)
    if as_json:
        print(json.dumps({"videos": [one.as_dict() for one in outcomes]} | {s: count[s] for s in STATUSES}))
    else:
        if summaries := [one.summary for one in outcomes if one.summary]:
            Console().print(summary_table(summaries))
        print(", ".join(f"{count[status]} {status}" for status in STATUSES))
    if count["failed"]:
        names = ", ".join(one.video.name for one in outcomes if one.status == "failed")
        again = ". The same command tries only these again" if [*files] else ""
        raise CommandError(f"{count['failed']} of {len(videos)} videos could not be processed whole: {names}{again}")


def _process(video: Path, files: ResultFiles, process: Process, title: str) -> Outcome:
    try:
        return Outcome(video, "done", process(str(video), files, title))
    except DamageError as error:
        return Outcome(video, "failed", error.summary, str(error))
    except (CommandError, MediaError, SourceError) as error:
        return Outcome(video, "failed", None, str(error))
    except FFmpegError as error:
        return Outcome(video, "failed", None, f"FFmpeg can't read or write it: {error.strerror}")
