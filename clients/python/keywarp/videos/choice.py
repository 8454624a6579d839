"""Choose the video of a container, which may also hold cover pictures and several videos."""

from typing import TYPE_CHECKING

from av.stream import Disposition

from keywarp.videos.errors import VideoError
from keywarp.videos.opening import is_format

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails


def videos_of(container: "InputContainer") -> "list[VideoStream]":
    """Return the videos of a container, without cover pictures and thumbnails."""
    # FFmpeg reads any .txt file as terminal art (format `tty`).
    streams = [] if is_format(container, "tty") else container.streams.video
    return [stream for stream in streams if not stream.disposition & _PICTURES]


def choose_video(container: "InputContainer", number: int | None = None) -> "VideoStream":
    """Choose the video to read.

    Args:
        container: The container, just opened.
        number: Which of the videos, from 0; None for the one that FFmpeg finds best.

    Raises:
        VideoError: There is no video, none of a known codec, or none with this number.
    """
    videos = videos_of(container)
    if not videos:
        raise VideoError("has no video in it" + " but a cover picture" * bool(container.streams.video))
    if number is not None:
        if number >= len(videos):
            raise VideoError(f"has {len(videos)} videos, numbered from 0, but no video {number}")
        known = [videos[number]] if videos[number].codec_context else []
    else:
        known = [video for video in videos if video.codec_context]
    if not known:
        raise VideoError("has a video, but of a codec that FFmpeg doesn't know")
    best = container.streams.best("video")
    return next((video for video in known if best is not None and video.index == best.index), known[0])


def describe_choice(container: "InputContainer", chosen: "VideoStream") -> str | None:
    """Say which of several videos is read, or return None if there is only one."""
    videos = videos_of(container)
    if len(videos) < 2:
        return None
    number = next(place for place, video in enumerate(videos) if video.index == chosen.index)
    listed = ", ".join(f"{place}: {_describe(video)}" for place, video in enumerate(videos))
    return f"there are {len(videos)} videos ({listed}); this is number {number} (`video` chooses one)"


def _describe(video: "VideoStream") -> str:
    if not (context := video.codec_context):
        return "unknown codec"
    size = f" {context.width}x{context.height}" if context.width else ""
    return f"{context.codec.canonical_name}{size}"
