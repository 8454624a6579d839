"""Video files, URLs and cameras as sources, read by FFmpeg."""

from collections.abc import Iterator
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import Final, Self

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from keywarp.client.contents import describe_address, describe_file
from keywarp.client.errors import SourceError
from keywarp.client.frames import DEFAULT_FPS, Frame, Source
from keywarp.images.orientation import UPRIGHT, turn
from keywarp.videos import (
    Lost,
    Note,
    Picture,
    SoftwareDecoder,
    VideoError,
    VideoReader,
    choose_video,
    file_extent,
    listed_packets,
    open_container,
    swaps_sides,
)

OPEN_TIMEOUT: Final = 10.0  # seconds to open a URL
READ_TIMEOUT: Final = 30.0  # seconds without data from a URL
# A web server may close a connection that is still needed, such as one that FFmpeg reads slowly. Without persistent
# connections, FFmpeg sends its next request over one that a server has closed without saying so, and loses a packet.
_HTTP_OPTIONS: Final = {"reconnect": "1", "reconnect_delay_max": "2", "multiple_requests": "1"}


class VideoSource(Source):
    """A video of a file, URL or camera.

    Attributes:
        orientation: Which way up the last frame is stored (`keywarp.videos.orientation`).
    """

    orientation = UPRIGHT

    def __init__(
        self, name: str | PathLike[str], *, vectors: bool = False, upright: bool = True, video: int | None = None
    ) -> None:
        """Open a file or URL, and decode its first frame.

        Args:
            name: The file or URL.
            vectors: Whether frames come with the codec's motion vectors, which slows decoding by a few percent.
            upright: Whether frames are turned as the video's display matrix says, or left as they are stored.
            video: Which of the file's videos, from 0, or None for the best.

        Raises:
            SourceError: If the file or URL can't be opened, or has no video, or no frame of it can be decoded.
        """
        name = str(name)
        container = open_video(name)
        self._use(name, container, choose(container, name, video), vectors=vectors, upright=upright)

    @classmethod
    def camera(cls, device: str, *, upright: bool = True) -> Self:
        """Open a camera by its device file (Video4Linux).

        Args:
            device: The device file.
            upright: Whether frames are turned as the camera says in their EXIF data, or left as they are stored.

        Raises:
            SourceError: If there is no such camera, or it can't be used.
        """
        source = cls.__new__(cls)
        try:
            container = open_container(device, format="v4l2")
        except (av.FFmpegError, ValueError) as error:
            raise SourceError(f"the camera {device} can't be opened: {_reason(error)}") from error
        source._use(device, container, choose(container, device), vectors=False, upright=upright)
        source.live = True
        return source

    def _use(self, name: str, container: InputContainer, stream: VideoStream, *, vectors: bool, upright: bool) -> None:
        self._name = name
        self._container = container
        self._upright = upright
        self._vectors = vectors
        self._damage: Exception | None = None
        decoder = SoftwareDecoder(stream.codec_context, vectors=vectors, threads=None)
        self._reader = VideoReader(container, stream, decoder)
        self._items = self._read()
        try:
            first = next(self._items, None)
            if first is None:
                reason = self._damage if isinstance(self._damage, VideoError) else "has no frame that can be decoded"
                raise SourceError(f"{name!r} {_contents(name) or reason}") from _cause(name, self._damage)
        except BaseException:
            container.close()
            raise
        self._first: Frame | None = first
        self.height, self.width = first.image.shape[:2]
        self.fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
        # The index of a fragmented file isn't complete yet.
        self.count = (listed_packets(container, stream, shown=True) or stream.frames) if stream.frames else None
        self.start = None if container.start_time is None else container.start_time / av.time_base
        self.aspect = stream.sample_aspect_ratio or self.aspect
        if upright and swaps_sides(self.orientation):
            self.aspect = 1 / self.aspect
        # A file on a web server has a known length and can be read at any speed, so it isn't live.
        self.live = _is_url(name) and container.duration is None

    def __iter__(self) -> Iterator[Frame]:
        """Decode the frames. Damaged ones are left out, and reported at the end; the frame after them has a `gap`."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._items
        cut = None if _is_url(self._name) else file_extent(local_path(self._name))
        reader, damage = self._reader, self._damage
        if not (reader.lost or damage or cut):
            return
        self.missing = max(self.missing, (self.count or 0) - reader.pictures, 1)
        count = self.count or (reader.pictures + reader.lost if reader.lost else None)
        share = f"{reader.pictures} of {count} frames" if count else f"{reader.pictures} frames"
        reason = ""
        if damage:
            reason = f" (it {damage})" if isinstance(damage, VideoError) else f" ({_reason(damage)})"
        elif cut:
            reason = f" (it {cut})"
        cause = _cause(self._name, damage)
        raise SourceError(f"{self._name!r} is damaged: {share} could be decoded{reason}") from cause

    def close(self) -> None:
        """Close the file or camera."""
        self._container.close()

    def _read(self) -> Iterator[Frame]:
        gap = False
        try:
            for item in self._reader:
                match item:
                    case Picture():
                        yield self._frame(item, gap=gap)
                        gap = False
                    case Lost():
                        gap = True
                        self.missing += 1
                    case Note():
                        self.notes = (*self.notes, item.text)
        except (av.FFmpegError, OSError, VideoError) as error:
            self._damage = error

    def _frame(self, picture: Picture, *, gap: bool) -> Frame:
        self.orientation = picture.orientation
        orientation = picture.orientation if self._upright else UPRIGHT
        vectors = picture.vectors and picture.vectors.turned(orientation)
        return Frame(turn(picture.pixels, orientation), picture.time, vectors, gap, picture.unit)


def open_video(name: str | PathLike[str]) -> InputContainer:
    """Open a file or URL.

    Raises:
        SourceError: If it can't be opened.
    """
    name = str(name)
    remote = _is_url(name)
    if not remote and not local_path(name).is_file():
        raise SourceError(f"there is no file or folder {name!r}")
    if not remote and not local_path(name).stat().st_size:
        raise SourceError(f"{name!r} is empty")
    try:
        return open_container(
            # Otherwise FFmpeg takes what is before a colon for a protocol.
            name if remote else f"file:{local_path(name)}",
            options=_HTTP_OPTIONS if name.startswith(("http:", "https:")) else {},
            timeout=(OPEN_TIMEOUT, READ_TIMEOUT) if remote else None,
        )
    except av.InvalidDataError as error:
        if not remote and _is_mp4(local_path(name)):
            raise SourceError(f"{name!r} is a truncated MP4 file: its index (moov) is missing") from error
        what = _contents(name) or "is not a video, or is damaged from the start"
        raise SourceError(f"{name!r} {what}") from _cause(name, error)
    except (av.FFmpegError, OSError) as error:
        what = (_contents(name) if remote else None) or f"can't be opened: {_reason(error)}"
        raise SourceError(f"{name!r} {what}") from _cause(name, error)


def choose(container: InputContainer, name: str | PathLike[str], video: int | None = None) -> VideoStream:
    """Choose the video of a container, which is closed if there is none.

    Raises:
        SourceError: If it has no video, or not this one.
    """
    try:
        return choose_video(container, video)
    except VideoError as error:
        container.close()
        raise SourceError(f"{str(name)!r} {_contents(str(name)) or error}") from error


def orientation_of_file(path: Path, video: int | None = None) -> int:
    """Decode the first frame of a file to find which way up it is (`keywarp.videos.orientation`).

    Raises:
        SourceError: If the file can't be opened, or has no such video, or no frame of it can be decoded.
    """
    with closing(VideoSource(path, video=video)) as source:
        return source.orientation


def local_path(name: str) -> Path:
    """Return the path that a name stands for, which may be a `file:` URL."""
    return Path(name.removeprefix("file://").removeprefix("file:") if not Path(name).exists() else name)


def _is_url(name: str) -> bool:
    return "://" in name and not name.startswith("file:") and not Path(name).exists()


def _contents(name: str) -> str | None:
    """Say what a source is that isn't a video, or return None if it may be one."""
    return describe_address(name) if _is_url(name) else describe_file(local_path(name))


def _is_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _cause(name: str, error: Exception | None) -> Exception | None:
    """Return what tracebacks show as the cause. FFmpeg's errors have the whole URL in them, with its secrets."""
    return None if _is_url(name) else error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
