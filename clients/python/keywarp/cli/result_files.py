"""The files that `run` and `stream` write, for one source or for each video of a folder."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, Self

import typer

from keywarp.cli.files import write_errors

ENDINGS: Final = {"out": ".mp4", "ndjson": ".ndjson", "coco": ".json", "mot": ".txt", "parquet": ".parquet"}
# What each option can write. A file of a format that isn't listed may have any ending.
ALLOWED: Final = {"out": (".mp4", ".m4v"), "parquet": (".parquet", ".pq")}


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """The path of each file to write, or None; for a folder of videos, folders of such files.

    Attributes:
        out: The annotated video.
        ndjson: One result per line.
        coco: A COCO file.
        mot: A MOTChallenge file.
        parquet: A Parquet file.
    """

    out: Path | None = None
    ndjson: Path | None = None
    coco: Path | None = None
    mot: Path | None = None
    parquet: Path | None = None

    def __iter__(self) -> Iterator[Path]:
        """Iterate over the paths that are given."""
        return iter(self._given().values())

    def check_files(self) -> Self:
        """Check, for one source, that the names are those of files of the formats.

        Raises:
            typer.BadParameter: If one names a folder, has an ending of another format, or is given twice.
        """
        for name, path in self._given().items():
            allowed = ALLOWED.get(name)
            if path.is_dir():
                raise typer.BadParameter(
                    f"{str(path)!r} is a folder, which is for a folder of videos: name a file", param_hint=f"--{name}"
                )
            if allowed and path.suffix.lower() not in allowed:
                kind = "an annotated video is MP4" if name == "out" else "this writes Parquet"
                raise typer.BadParameter(
                    f"{path.name!r} can't be written, since {kind}: name it {path.stem + allowed[0]!r}",
                    param_hint=f"--{name}",
                )
        self._refuse_twins()
        return self

    def check_folders(self) -> Self:
        """Check, for a folder of videos, that the names are those of folders, which needn't exist, and make them.

        Raises:
            typer.BadParameter: If one is a file, or ends like one.
            CommandError: If a folder can't be made.
        """
        for name, path in self._given().items():
            if path.is_file() or path.suffix.lower() in {ENDINGS[name], *ALLOWED.get(name, ())}:
                raise typer.BadParameter(
                    f"the source is a folder of videos, which gives a file for each: name a folder, not {str(path)!r}",
                    param_hint=f"--{name}",
                )
            with write_errors(path):
                path.mkdir(parents=True, exist_ok=True)
        return self

    def of_videos(self, videos: Iterable[Path]) -> dict[Path, "ResultFiles"]:
        """Return the files of each video of a folder: `gate.mkv` gives `gate.ndjson`, in the folder for these.

        Videos that differ only in their ending keep it: `gate.mkv.ndjson`.
        """
        videos = list(videos)
        stems = Counter(video.stem.casefold() for video in videos)
        named = {video: video.stem if stems[video.stem.casefold()] == 1 else video.name for video in videos}
        return {
            video: replace(self, **{kind: folder / (stem + ENDINGS[kind]) for kind, folder in self._given().items()})
            for video, stem in named.items()
        }

    @property
    def are_complete(self) -> bool:
        """Whether there are some, and all of them exist. A file has its name only when it is complete."""
        return bool(self._given()) and all(path.exists() for path in self)

    def _given(self) -> dict[str, Path]:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: path for name, path in found.items() if path is not None}

    def _refuse_twins(self) -> None:
        names: dict[Path, str] = {}
        for name, path in self._given().items():
            if path in names:
                raise typer.BadParameter(f"is the same file as --{names[path]}", param_hint=f"--{name}")
            names[path] = name
