"""Open containers, and read the packets of a video."""

from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import av
from av.container import InputContainer
from av.error import FFmpegError

from keywarp.videos.continuity import Continuity, FileContinuity
from keywarp.videos.outcomes import Note
from keywarp.videos.transport import HEAD_OF_STREAM, TransportFile, is_transport_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.video.stream import VideoStream


_LATE_STREAM: Final = Note(
    "a stream begins in it later, perhaps where recordings were joined, and isn't read: if it is a video, its pictures "
    "are missing"
)
_TO_JOIN: Final = 2  # packets from the one that FFmpeg marks, in a joined transport stream, to the next recording's


def open_container(file: Any, **options: Any) -> InputContainer:
    """Open a container as `av.open` does, whatever bytes its texts hold.

    Packets of a transport stream on this machine that come twice are taken out (`keywarp.videos.transport`).

    Args:
        file: A name, or an object to read from.
        options: Those of `av.open`.

    Raises:
        FFmpegError: It can't be opened.
    """
    if isinstance(file, str) and "io_open" not in options and (path := _transport_stream(file)):
        options["io_open"] = lambda *_: TransportFile(_LocalFile(path))
    container: InputContainer = av.open(file, "r", metadata_errors="replace", **options)
    return container


class _LocalFile(FileIO):
    """A file that is closed when nothing refers to it any more, since FFmpeg closes only those that it has opened."""

    def __del__(self) -> None:
        self.close()


def _transport_stream(name: str) -> Path | None:
    """Return the path of a transport stream on this machine, or None if it is something else."""
    path = _path(name)
    try:
        if path.is_file():
            with path.open("rb") as file:
                return path if is_transport_stream(file.read(HEAD_OF_STREAM)) else None
    except OSError:
        pass  # FFmpeg says what is wrong
    return None


def _path(name: str) -> Path:
    return Path(name.removeprefix("file:"))


def is_format(container: "InputContainer", *names: str) -> bool:
    """Return whether a container has one of some formats. FFmpeg has several names for each."""
    return not set(names).isdisjoint(container.format.name.split(","))


def demux(
    container: InputContainer,
    video: "VideoStream",
    continuity: Continuity | None = None,
    note: Callable[[Note], None] | None = None,
) -> "Iterator[av.Packet[Any]]":
    """Read the packets of a video that have content. Afterwards the decoder is to be flushed.

    A packet is marked as corrupt if a part of it, or those before it, are missing in a transport stream. FFmpeg marks
    neither packets of which nothing has come, nor what is missing of the first one. But it does mark a packet where
    recordings were joined (`cat a.ts b.ts`). That mark is removed if the next recording's key frame follows where it
    should, and, as far as that can be known, if it is a joint at all.

    Args:
        container: The container.
        video: The video.
        continuity: What is known of a transport stream that isn't a file on this machine. It was fed before FFmpeg.
        note: Is told at the end what isn't read of the container, which can't be known at its beginning.

    Raises:
        FFmpegError: The container can't be read any further.
    """
    if continuity is None and is_format(container, "mpegts") and (path := _path(container.name)).is_file():
        continuity = FileContinuity(path)
    held: deque[av.Packet[Any]] = deque()  # from a marked packet on
    try:
        for packet in _marked(container, video, continuity, note):
            if (
                held
                and packet.is_keyframe
                and (len(held) == _TO_JOIN or _jumps_back(held[-1], packet))
                and (continuity is None or _joined(continuity, held[0], packet))
            ):
                held[0].is_corrupt = False
            held.append(packet)
            while held and (len(held) > _TO_JOIN or not held[0].is_corrupt):
                yield held.popleft()
    except FFmpegError:
        yield from held
        raise
    yield from held


def _marked(
    container: InputContainer,
    video: "VideoStream",
    continuity: Continuity | None,
    note: Callable[[Note], None] | None,
) -> "Iterator[av.Packet[Any]]":
    """Mark packets before which others are missing, unless FFmpeg has marked one that came just before."""
    place: int | None = None
    marks: deque[bool] = deque(maxlen=1 + _TO_JOIN)
    for packet in _packets(container, video, note):
        marks.append(packet.is_corrupt)
        if continuity and packet.pos is not None:
            if place is not None and not any(marks) and continuity.broken(video.id, place, packet.pos):
                packet.is_corrupt = marks[-1] = True
            place = packet.pos
        yield packet


def _joined(continuity: Continuity, before: "av.Packet[Any]", packet: "av.Packet[Any]") -> bool:
    return before.pos is None or packet.pos is None or continuity.joined(before.pos, packet.pos)


def _jumps_back(before: "av.Packet[Any]", packet: "av.Packet[Any]") -> bool:
    return before.dts is not None and packet.dts is not None and packet.dts < before.dts


def _packets(
    container: InputContainer, video: "VideoStream", note: Callable[[Note], None] | None
) -> "Iterator[av.Packet[Any]]":
    packets = container.demux(video)
    while True:
        try:
            packet = next(packets, None)
        except IndexError:  # PyAV's, at the end of a container in which a stream has appeared that it doesn't know
            if note:
                note(_LATE_STREAM)
            return
        if packet is None:
            return
        if packet.size:
            yield packet
