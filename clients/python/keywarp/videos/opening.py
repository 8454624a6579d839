"""Open containers, and read the packets of a video."""

from typing import TYPE_CHECKING, Any

import av
from av.container import InputContainer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.video.stream import VideoStream


def open_container(file: Any, **options: Any) -> InputContainer:
    """Open a container as `av.open` does, whatever bytes its texts hold.

    Args:
        file: A name, or an object to read from.
        options: Those of `av.open`.

    Raises:
        FFmpegError: It can't be opened.
    """
    container: InputContainer = av.open(file, "r", metadata_errors="replace", **options)
    return container


def demux(container: InputContainer, video: "VideoStream") -> "Iterator[av.Packet[Any]]":
    """Read the packets of a video that have content. Afterwards the decoder is to be flushed.

    Raises:
        FFmpegError: The container can't be read any further.
    """
    packets = container.demux(video)
    while True:
        try:
            packet = next(packets, None)
        except IndexError:  # PyAV's, at the end of a container in which a stream has appeared that it doesn't know
            return
        if packet is None:
            return
        if packet.size:
            yield packet
