"""Open videos, or ranges of them, as clips."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from keywarp.cli.errors import CommandError
from keywarp.cli.options import open_frames
from keywarp.clips.motion_vectors import motion_vectors
from keywarp.clips.ranges import ALL, Seconds
from keywarp.engines.comparison import Clip, ClipFrame
from keywarp.protocol.addresses import without_secrets


def open_clip(video: str, seconds: Seconds = ALL, *, as_stored: bool = False, number: int | None = None) -> Clip:
    """Open a video as a clip, and check that it can be read.

    Args:
        video: A video file or URL, or a folder of images.
        seconds: The range to use.
        as_stored: Whether frames are left as they are stored, instead of being turned upright.
        number: Which of the file's videos, from 0, or None for the best.

    Raises:
        CommandError: If it is live, so that it can't be read twice.
        typer.BadParameter: If `number` is given for images.
        SourceError: If there is no such video.
    """
    with open_frames(video, as_stored=as_stored, video=number) as source:
        if source.live:
            raise CommandError(f"{video!r} is live, and it must be read several times: record it first")
        fps, count = source.fps, source.count
    start, end = seconds
    if count is not None:
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
    return Clip(name, lambda: _frames(video, seconds, as_stored, number), count, repr(parts))


def _frames(video: str, seconds: Seconds, as_stored: bool, number: int | None) -> Iterator[ClipFrame]:
    start, end = seconds
    begin: float | None = None
    with open_frames(video, as_stored=as_stored, video=number, vectors=True) as source:
        for index, frame in enumerate(source):
            stamp = index / source.fps if frame.timestamp is None else frame.timestamp
            begin = stamp if begin is None else begin
            time = stamp - begin
            if end is not None and time >= end:
                break
            if time >= start:
                yield ClipFrame(frame.image, index, time, motion_vectors(frame))
