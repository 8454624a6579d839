"""Videos in bulk on Ray Data: one task for each, which is `keywarp run` in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray

from keywarp.cli.errors import CommandError
from keywarp.cli.result_files import ResultFiles
from keywarp.client.folders import folder_videos


def list_videos(source: Path) -> list[str]:
    """List the videos of a folder, or the paths and URLs in a file, one a line. Lines that begin with # are comments.

    Raises:
        CommandError: There are none, or the file can't be read.
        SourceError: The folder can't be read, or has images, too.
    """
    try:
        lines = [*map(str, folder_videos(source))] if source.is_dir() else source.read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise CommandError(f"the list of videos {str(source)!r} can't be read: {error}") from error
    if not (videos := [line.strip() for line in lines if line.strip() and not line.startswith("#")]):
        raise CommandError(f"there are no videos in {str(source)!r}")
    return videos


def plan(videos: Sequence[str], files: ResultFiles) -> dict[str, ResultFiles]:
    """Return the files of each video. Their names are those that `keywarp run` gives the videos of a folder.

    Raises:
        CommandError: Two videos have the same path, and so would have the same files.
    """
    paths = [Path(urlsplit(video).path if "://" in video else video) for video in videos]
    named = {path.name: video for path, video in zip(paths, videos, strict=True)}
    if len(named) < len(videos):
        twin = next(video for path, video in zip(paths, videos, strict=True) if named[path.name] != video)
        raise CommandError(
            f"another video is also named {Path(twin).name!r}, and would have the same files: rename one"
        )
    its = files.of_videos(paths)
    return {video: its[path] for path, video in zip(paths, videos, strict=True)}


def process(
    planned: dict[str, ResultFiles], options: Sequence[str], cpus: float, gpus: float
) -> Iterator[dict[str, Any]]:
    """Process videos on the Ray cluster that is connected, and yield each one's `video`, `error` and `figures`.

    A task whose process or node dies is started again by Ray. Results have their names only when they are complete.

    Args:
        planned: The files to write for each video.
        options: Options of `keywarp run`.
        cpus: The cores that a video reserves.
        gpus: The GPUs that a video reserves.
    """
    rows = [
        {"video": video, "arguments": json.dumps([video, *_file_options(files), *options, "--json"])}
        for video, files in planned.items()
    ]
    tasks = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_run, num_cpus=cpus, num_gpus=gpus)
    yield from tasks.iter_rows()


def _file_options(files: ResultFiles) -> list[str]:
    given = {field.name: getattr(files, field.name) for field in fields(files)}
    return [part for kind, path in given.items() if path for part in (f"--{kind}", str(path.resolve()))]


def _run(row: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "keywarp.cli", "run", *json.loads(row["arguments"])]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    said = [line for line in done.stderr.splitlines() if line.startswith("keywarp: ")] or done.stderr.splitlines()
    error = (said[-1].removeprefix("keywarp: ") if said else f"status {done.returncode}") if done.returncode else ""
    return {"video": row["video"], "error": error, "figures": done.stdout.strip()}
