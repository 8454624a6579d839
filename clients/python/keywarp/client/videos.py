"""Video files, URLs and cameras as sources, read by FFmpeg."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame

from keywarp.client.errors import SourceError
from keywarp.client.frames import DEFAULT_FPS, CodecVectors, Frame, Source

OPEN_TIMEOUT = 10.0  # seconds to open a URL
READ_TIMEOUT = 30.0  # seconds without data from a URL


class VideoSource(Source):
    """The first video stream of a file, URL or camera."""

    def __init__(self, name: str | PathLike[str], *, vectors: bool = False) -> None:
        """Open a file or URL.

        Args:
            name: The file or URL.
            vectors: Whether frames come with the codec's motion vectors, which slows decoding by a few percent.

        Raises:
            SourceError: If the file or URL can't be opened, or has no video.
        """
        self._use(str(name), open_video(name))
        self._vectors = vectors
        if vectors:
            # FFmpeg decodes the slices of a frame in parallel here. Parallel frames would lose some of their vectors.
            self._stream.thread_type = "SLICE"
            self._stream.codec_context.options = {"flags2": "+export_mvs"}
        # A file on a web server has a known length and can be read at any speed, so it isn't live.
        self.live = "://" in str(name) and not str(name).startswith("file:") and self._container.duration is None

    @classmethod
    def camera(cls, device: str) -> Self:
        """Open a camera by its device file (Video4Linux).

        Raises:
            SourceError: If there is no such camera, or it can't be used.
        """
        source = cls.__new__(cls)
        try:
            source._use(device, av.open(device, format="v4l2"))
        except (av.FFmpegError, ValueError) as error:
            raise SourceError(f"the camera {device} can't be opened: {_reason(error)}") from error
        source.live = True
        return source

    def _use(self, name: str, container: InputContainer) -> None:
        self._name = name
        self._container = container
        self._stream = container.streams.video[0]
        self._vectors = False
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or DEFAULT_FPS)
        self.count = self._stream.frames or None
        self.width = self._stream.width
        self.height = self._stream.height

    def __iter__(self) -> Iterator[Frame]:
        """Decode the frames. Damaged frames are left out, and reported at the end."""
        decoded = 0
        damage: Exception | None = None
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError) as error:
                damage = error
                break
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                damage = error
                continue
            for frame in frames:
                decoded += 1
                image = np.ascontiguousarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                yield Frame(image, frame.time, self._vectors_of(frame) if self._vectors else None)
        if damage or is_truncated(self._container):
            share = f"{decoded} of {self.count} frames" if self.count else f"{decoded} frames"
            reason = f" ({_reason(damage)})" if damage else ""
            raise SourceError(f"{self._name!r} is damaged: {share} could be decoded{reason}") from damage

    def close(self) -> None:
        """Close the file or camera."""
        self._container.close()

    def _vectors_of(self, frame: VideoFrame) -> CodecVectors:
        exported = frame.side_data.get("MOTION_VECTORS")
        blocks = None if exported is None else exported.to_ndarray()
        return CodecVectors(blocks, int(frame.pict_type), self._stream.codec_context.codec.canonical_name)


def open_video(name: str | PathLike[str]) -> InputContainer:
    """Open a video file or URL, and check that it contains a video.

    Raises:
        SourceError: If it can't be opened, or has no video.
    """
    name = str(name)
    remote = "://" in name
    if not remote and not Path(name).is_file():
        raise SourceError(f"there is no file or folder {name!r}")
    try:
        container = av.open(name, timeout=(OPEN_TIMEOUT, READ_TIMEOUT) if remote else None)
    except av.InvalidDataError as error:
        if not remote and _is_mp4(Path(name)):
            raise SourceError(f"{name!r} is a truncated MP4 file: its index (moov) is missing") from error
        raise SourceError(f"{name!r} is not a video, or is damaged from the start") from error
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"{name!r} can't be opened: {_reason(error)}") from error
    # FFmpeg reads any .txt file as terminal art (format `tty`).
    if not container.streams.video or container.format.name == "tty":
        container.close()
        raise SourceError(f"{name!r} has no video in it")
    return container


def is_truncated(container: InputContainer) -> bool:
    """Return whether the container's index points beyond the end of the file; False without an index."""
    size = container.size
    entries = container.streams.video[0].index_entries
    return size > 0 and any(entry.pos + entry.size > size for entry in entries)


def _is_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
