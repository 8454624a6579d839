"""Make the payloads of a source: its frames as JPEGs, or the packets or bytes of its file."""

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, get_args

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from numpy.typing import NDArray

from keywarp.client.contents import describe_file
from keywarp.client.errors import SourceError
from keywarp.client.frames import Source
from keywarp.client.images import encode_jpeg
from keywarp.client.resources import Closable
from keywarp.client.videos import choose, open_video
from keywarp.protocol import Container, PacketCodec
from keywarp.videos import (
    Note,
    UnitTimes,
    demux,
    describe_choice,
    file_extent,
    is_format,
    left_out_note,
    listed_packets,
)

CHUNK_BYTES: Final = 188 * 128  # 128 packets of a transport stream
PARAMETERS: Final[dict[PacketCodec, re.Pattern[bytes]]] = {  # the start of a sequence parameter set in Annex-B format
    "h264": re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67]"),
    "hevc": re.compile(rb"\x00\x00\x01[\x42\x43]"),
}
ANNEX_B: Final[dict[PacketCodec, str]] = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}  # FFmpeg's filters


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """The content of one binary message."""

    data: bytes
    id: int | None = None  # returned with the result; None if a payload isn't one frame or packet
    timestamp: float | None = None  # seconds
    image: NDArray[np.uint8] | None = None  # the frame, RGB (H, W, 3), if the payload is one
    starts: bool = False  # whether decoding can begin with this packet
    gap: bool = False  # whether frames are missing before this image
    discard: bool = False  # whether this packet is only needed to decode others


class Payloads(Closable):
    """The payloads of a source, to iterate over once.

    Attributes:
        notes: What one should know about the source.
        missing: The number of frames so far that are missing in the file, or the least number that it can be.
        listed: The number of frames that the index of a file lists which is sent as it is, or None if there is none.
    """

    notes: tuple[str, ...] = ()
    missing: int = 0
    listed: int | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Payload]:
        """Read or make the payloads.

        Raises:
            SourceError: If the source is damaged, after the payloads that could be read.
        """

    def close(self) -> None:
        """Release the file, if the payloads hold one."""


class ImagePayloads(Payloads):
    """Payloads that are the frames of a source as JPEGs."""

    def __init__(self, source: Source, quality: int) -> None:
        self._source = source
        self._quality = quality

    def __iter__(self) -> Iterator[Payload]:
        """Compress the frames, one at a time."""
        for index, frame in enumerate(self._source):
            data = encode_jpeg(frame.image, self._quality)
            yield Payload(data, index, frame.timestamp, frame.image, gap=frame.gap)


class PacketPayloads(Payloads):
    """Payloads that are the packets of a video file. H.264 and HEVC are in Annex-B format.

    Their ids are the numbers of the packets in the file, from 0.
    """

    def __init__(self, path: Path, codec: PacketCodec, video: int | None = None) -> None:
        """Open the file.

        Args:
            path: The file.
            codec: The codec of its video.
            video: Which of the file's videos, from 0, or None for the best.

        Raises:
            SourceError: If the file can't be opened, or its video has another codec.
        """
        self._path = path
        self._codec = codec
        self._container = open_video(path)
        self._stream = choose(self._container, path, video)
        self.notes = tuple(filter(None, [describe_choice(self._container, self._stream)]))
        found = self._stream.codec_context.codec.canonical_name
        if found != codec:
            self._container.close()
            raise _unsuitable(path, f"is {found}, not {codec}", found)

    def __iter__(self) -> Iterator[Payload]:
        """Read the packets, from the first key frame on."""
        annex_b = BitStreamFilterContext(ANNEX_B.get(self._codec, "null"), self._stream)
        parameters = PARAMETERS.get(self._codec)
        number = left_out = 0
        times = UnitTimes(in_coding_order=is_format(self._container, "avi") and self._stream.codec_context.has_b_frames)
        begun = False
        notes: list[Note] = []
        try:
            for packet in chain(
                demux(self._container, self._stream, note=notes.append), (None,)
            ):  # None flushes the filter
                if packet and not begun and not packet.is_keyframe:
                    number, left_out = number + 1, left_out + 1
                    continue
                if packet and not begun and left_out:
                    self.notes += (left_out_note(left_out).text,)
                begun = begun or bool(packet and packet.is_keyframe)
                gap = bool(packet and packet.is_corrupt)
                timed = packet is None or times.known(packet)
                for unit in annex_b.filter(packet):
                    timestamp = None if unit.pts is None or not timed else float(unit.pts * unit.time_base)
                    data = bytes(unit)
                    if not number - left_out and parameters and not parameters.search(data):
                        # FFmpeg's filter puts them in front of IDR frames only. A video that was cut may have none.
                        data = _avc_parameters(self._stream.codec_context.extradata or b"") + data
                    # A decoder that begins at a key frame needs its parameters, which some files have only once.
                    starts = unit.is_keyframe and (parameters is None or parameters.search(data) is not None)
                    yield Payload(data, number, timestamp, starts=starts, gap=gap, discard=unit.is_discard)
                    number += 1
            self.notes += tuple(note.text for note in notes)
        except av.FFmpegError as error:
            self.missing = max((listed_packets(self._container, self._stream) or 0) - number, 1)
            raise SourceError(f"{str(self._path)!r} is damaged: {number} packets could be read") from error
        if not begun:
            raise SourceError(f"{str(self._path)!r} has no key frame that decoding can start with")
        listed = listed_packets(self._container, self._stream) or number
        cut = file_extent(self._path)
        if number < listed or cut:
            self.missing = max(listed - number, 1)
            share = f"{number} of {listed} packets" if number < listed else f"{number} packets"
            raise SourceError(f"{str(self._path)!r} is truncated: {share} could be read" + f" (it {cut})" * bool(cut))

    def close(self) -> None:
        """Close the file."""
        self._container.close()


class ContainerPayloads(Payloads):
    """Payloads that are the bytes of a file, in chunks."""

    def __init__(self, path: Path, container: Container, video: int | None = None) -> None:
        """Open the file.

        Args:
            path: The file.
            container: Its format.
            video: Which of the file's videos the server is to take, from 0, or None for the best.

        Raises:
            SourceError: If the file can't be opened, has another format, or has no such video.
        """
        with open_video(path) as opened:
            stream = choose(opened, path, video)
            found = stream.codec_context.codec.canonical_name
            self.listed = listed_packets(opened, stream, shown=True)
            if container not in opened.format.name.split(","):
                raise _unsuitable(path, f"is in {opened.format.name}, not {container}", found)
        self._file = path.open("rb")

    def __iter__(self) -> Iterator[Payload]:
        """Read the chunks."""
        while chunk := self._file.read(CHUNK_BYTES):
            yield Payload(chunk)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_payloads(path: Path, codec: PacketCodec | Container, video: int | None = None) -> Payloads:
    """Open a video file to send its packets, or its bytes if `codec` is a container.

    Args:
        path: The file.
        codec: The codec of its video, or its container.
        video: Which of the file's videos, from 0, or None for the best.

    Raises:
        SourceError: If the file can't be opened, or has another codec or container.
    """
    match codec:
        case "mpegts" | "mp4" | "webm":
            return ContainerPayloads(path, codec, video)
        case _:
            return PacketPayloads(path, codec, video)


def _avc_parameters(extradata: bytes) -> bytes:
    """Return the parameter sets of an `avcC` box (ISO 14496-15) in Annex-B format, or nothing if it isn't one."""
    if extradata[:1] != b"\x01":
        return b""
    found, place, sets = b"", 6, extradata[5:6]
    for mask in (0x1F, 0xFF):  # sequence parameter sets, and picture parameter sets
        for _ in range(sets[0] & mask if sets else 0):
            size = int.from_bytes(extradata[place : place + 2])
            found += b"\x00\x00\x00\x01" + extradata[place + 2 : place + 2 + size]
            place += 2 + size
        sets, place = extradata[place : place + 1], place + 1
    return found


def _unsuitable(path: Path, what: str, found: str) -> SourceError:
    """Say that a file can't be sent as it was asked for, and which codecs are possible."""
    if other := describe_file(path):
        return SourceError(f"{str(path)!r} {other}")
    codecs = f"`image` or `{found}`" if found in get_args(PacketCodec) else "`image`"
    return SourceError(f"the video in {str(path)!r} {what}: use the codec {codecs}")
