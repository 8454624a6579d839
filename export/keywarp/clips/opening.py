"""Open videos, or ranges of them, as clips."""

import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from keywarp.cli.errors import CommandError
from keywarp.cli.options import open_frames
from keywarp.cli.summary import print_notes
from keywarp.client import SourceError
from keywarp.clips.motion_vectors import motion_vectors
from keywarp.clips.ranges import ALL, Seconds
from keywarp.engines.comparison import Clip, ClipFrame
from keywarp.protocol.addresses import hide_secrets, without_secrets


def open_clip(
    video: str,
    seconds: Seconds = ALL,
    *,
    as_stored: bool = False,
    number: int | None = None,
    allow_damage: bool = False,
) -> Clip:
    """Open a video as a clip, and check that it can be read.

    What one should know about it is printed to stderr, such as that another video was left out.

    Args:
        video: A video file or URL, or a folder of images.
        seconds: The range to use.
        as_stored: Whether frames are left as they are stored, instead of being turned upright.
        number: Which of the file's videos, from 0, or None for the best.
        allow_damage: Whether what is damaged or missing is left out, with a message on stderr, instead of being an
            error when it is reached. The video is then read once here, because what it declares about its length may
            be wrong.

    Raises:
        CommandError: If it is live, so that it can't be read twice.
        typer.BadParameter: If `number` is given for images.
        SourceError: If there is no such video.
    """
    reader = _Reader(video, seconds, as_stored=as_stored, number=number, allow_damage=allow_damage)
    with open_frames(video, as_stored=as_stored, video=number) as source:
        if source.live:
            raise CommandError(f"{video!r} is live, and it must be read several times: record it first")
        reader.print_notes(source.notes)
        fps, count = source.fps, source.count
    start, end = seconds
    if allow_damage:
        count = sum(1 for _ in reader.frames())
    elif count is not None:
        last = count if end is None else min(round(end * fps), count)
        count = max(last - round(start * fps), 0)
    path, shown = Path(video), without_secrets(video)
    name = Path(shown).name or shown
    parts: list[object] = [sha256(video.encode()).hexdigest(), seconds]  # an address may have secrets
    if path.exists():
        stat = path.stat()
        parts = [str(path.resolve()), stat.st_size, stat.st_mtime_ns, seconds]
    if as_stored or number is not None:
        parts += [as_stored, number]
    return Clip(name, reader.frames, count, repr(parts))


class _Reader:
    """Reads a video several times, and says once what is wrong with it."""

    def __init__(
        self, video: str, seconds: Seconds, *, as_stored: bool, number: int | None, allow_damage: bool
    ) -> None:
        self._video = video
        self._seconds = seconds
        self._as_stored = as_stored
        self._number = number
        self._allow_damage = allow_damage
        self._said: set[str] = set()

    def print_notes(self, notes: tuple[str, ...]) -> None:
        """Print those of the notes to stderr that are new."""
        print_notes(self._video, [note for note in notes if note not in self._said])
        self._said.update(notes)

    def frames(self) -> Iterator[ClipFrame]:
        """Read the frames of the range.

        Raises:
            CommandError: If the video is damaged, which isn't allowed. This comes after the frames that can be read.
        """
        start, end = self._seconds
        begin: float | None = None
        with open_frames(self._video, as_stored=self._as_stored, video=self._number, vectors=True) as source:
            try:
                for index, frame in enumerate(source):
                    stamp = index / source.fps if frame.timestamp is None else frame.timestamp
                    begin = stamp if begin is None else begin
                    time = stamp - begin
                    if end is not None and time >= end:
                        break
                    if time >= start:
                        yield ClipFrame(frame.image, index, time, motion_vectors(frame))
            except SourceError as error:
                if not self._allow_damage:
                    raise CommandError(f"{error}. --allow-damage uses what can be read") from error
                self._say(hide_secrets(str(error)))
            self.print_notes(source.notes)

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            print(f"keywarp: {text}", file=sys.stderr)
