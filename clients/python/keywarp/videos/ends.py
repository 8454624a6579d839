"""What a container declares about the end of a video, compared with the packets that came."""

import re
from typing import TYPE_CHECKING, Any, Final

from keywarp.videos.opening import is_format

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

_DURATION: Final = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")  # as FFmpeg and mkvmerge write it for each track
_TOLERANCE: Final = 0.1  # seconds by which a declared duration may be longer than the packets, besides a long pause
_UNKNOWN_FRAMES: Final = 2**30  # what FFmpeg writes into an AVI whose header it can't complete, such as a pipe
_TRAILER: Final = 16  # bytes that may follow the last packet of a GIF


class PacketSpan:
    """What the packets of a video cover so far."""

    def __init__(self) -> None:
        self.count = 0
        self.end = 0  # in bytes of the file
        self._first: int | None = None  # in the stream's time base
        self._last: int | None = None
        self._pause = 0  # the longest time between two packets, in coding order
        self._open = False  # whether the last packet doesn't say how long it is shown

    def add(self, packet: "av.Packet[Any]") -> None:
        """Add the next packet."""
        self.count += 1
        if packet.pos is not None:
            self.end = max(self.end, packet.pos + packet.size)
        if packet.pts is None or packet.is_discard:
            return
        end = packet.pts + (packet.duration or 0)
        self._open = not packet.duration
        if self._first is None or self._last is None:
            self._first, self._last = packet.pts, end
            return
        self._pause = max(self._pause, packet.pts - self._last)
        self._first, self._last = min(self._first, packet.pts), max(self._last, end)

    def seconds(self, time_base: float) -> tuple[float, float]:
        """Return when the packets end, and how much longer the last one may be shown, which may be a pause.

        The end counts from 0, or from the first packet if that is before 0: of a video that begins late, some programs
        declare the end (FFmpeg's in Matroska, FLV and AVI), and others how long it lasts, which is less.
        """
        if self._first is None or self._last is None:
            return 0.0, 0.0
        return (self._last - min(self._first, 0)) * time_base, 1.5 * self._pause * time_base * self._open


def listed_packets(container: "InputContainer", video: "VideoStream", *, shown: bool = False) -> int | None:
    """Return the number of a video's packets that a container's index lists, or None without a complete index.

    Args:
        container: The container.
        video: The video.
        shown: Whether packets are left out that are only needed to decode others.
    """
    if not is_format(container, "mp4", "avi"):
        return None
    empty = is_format(container, "avi")  # whose empty packets repeat the picture before
    return sum((entry.size > 0 or not empty) and not (shown and entry.is_discard) for entry in video.index_entries)


def missing_end(container: "InputContainer", video: "VideoStream", span: PacketSpan) -> str | None:
    """Say what is missing at the end of a video by the container's own words, or return None.

    Args:
        container: The container, read to its end.
        video: The video.
        span: All its packets.
    """
    listed = listed_packets(container, video)
    if listed is not None and listed > span.count:
        return f"{listed - span.count} of the {listed} packets of video in its index are missing"
    if is_format(container, "gif") and container.size - span.end > _TRAILER:
        return f"{container.size - span.end} of its bytes can't be read"
    declared = _declared_seconds(container, video) if is_format(container, "webm", "flv", "mp4", "avi") else None
    if declared is None or video.time_base is None:
        missing = video.frames - span.count if is_format(container, "mp4") else 0
        return f"{missing} of its {video.frames} packets of video are missing" if missing > 0 else None
    lasts, pause = span.seconds(float(video.time_base))
    if lasts and declared - lasts > _TOLERANCE + pause:
        return f"its video lasts {lasts:.2f} s, but should last {declared:.2f} s"
    return None


def _declared_seconds(container: "InputContainer", video: "VideoStream") -> float | None:
    """Return how long a container says that a video lasts, or None if it only says it for all streams together."""
    if is_format(container, "avi") and not 0 < video.frames < _UNKNOWN_FRAMES:
        return None
    if is_format(container, "mp4", "avi"):
        return float(video.duration * video.time_base) if video.duration and video.time_base else None
    tag = next((text for name, text in video.metadata.items() if name.upper().startswith("DURATION")), "")
    if found := _DURATION.match(tag):
        return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    if len(container.streams) == 1 and container.duration:
        return container.duration / 1_000_000
    return None
