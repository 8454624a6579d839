"""Decode packets of H.264, HEVC, VP8, VP9 and AV1, and byte streams of the first two.

Without B-frames, packets are decoded without delay. A byte stream is one frame late, because a unit ends only where the
next one begins.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import av

from keywarp.protocol import FrameHeader, PacketCodec
from keywarp.server.decode.frames import Decoded, DecodedFrame
from keywarp.server.decode.nvdec import UnitHeaders
from keywarp.server.decode.video import VideoDecoder, VideoOptions
from keywarp.server.errors import BadVideoError, DamagedVideoError
from keywarp.videos import REMEMBERED, Lost, Note, Origin, Outcome, Outcomes, Shown, VideoError

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

    from keywarp.videos.units import Unit

MAX_UNIT_BYTES: Final = 16 * 2**20  # bytes of an access unit that is still incomplete
MAX_UNIT_CHUNKS: Final = 4096  # chunks that such a unit may be spread over


@dataclass(frozen=True, slots=True)
class _Format:
    decoder: str  # the name of FFmpeg's decoder
    unit: str  # what one packet holds, for error messages
    start: str  # what the first packet must hold, for error messages


_START_CODE = b"\x00\x00\x01"
_ANNEX_B = "parameter sets and a key frame"
_FORMATS: Final[Mapping[PacketCodec, _Format]] = {
    "h264": _Format("h264", "an H.264 access unit in Annex-B format", _ANNEX_B),
    "hevc": _Format("hevc", "an HEVC access unit in Annex-B format", _ANNEX_B),
    "vp8": _Format("vp8", "a VP8 frame", "a key frame"),
    "vp9": _Format("vp9", "a VP9 frame or superframe", "a key frame"),
    "av1": _Format("libdav1d", "an AV1 temporal unit", "a sequence header and a key frame"),
}


class PacketDecoder:
    """Decodes one video, in packets of one unit each or in chunks of an Annex-B byte stream.

    A frame has the id and timestamp of its packet, even if frames are presented in another order. In a byte stream, a
    frame has those of the chunk in which its access unit begins.
    """

    def __init__(self, codec: PacketCodec, options: VideoOptions, *, chunks: bool = False) -> None:
        """Set up a decoder.

        Args:
            codec: The packets' codec.
            options: How the video is decoded.
            chunks: Whether payloads are pieces of a byte stream (H.264 and HEVC only).
        """
        self.whole_units = not chunks
        self._format = _FORMATS[codec]
        self._max_pixels = options.max_pixels
        self._context = cast("VideoCodecContext", av.CodecContext.create(self._format.decoder, "r"))
        self._video = VideoDecoder(options)
        self._decoder = self._video.open(self._context)
        self._outcomes = Outcomes(codec)
        self._unit_headers = UnitHeaders(self._context)
        self._chunks = chunks
        self._units = 0
        self._headers: dict[int, FrameHeader] = {}  # by the unit's number, which decoders carry along as the pts
        self._starts: deque[tuple[int, FrameHeader]] = deque()  # each chunk's end in the byte stream, and its header
        self._received = 0  # bytes
        self._parsed = 0  # bytes

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:
        """Decode the frames that this payload completes."""
        if not payload:  # FFmpeg would treat it as the end
            raise BadVideoError("a video message without content")
        if not self._chunks:
            yield from self._unit(av.Packet(bytes(payload)), header)
            return
        self._received += len(payload)
        self._starts.append((self._received, header))
        yield from self._parse(payload)
        if self._received - self._parsed > MAX_UNIT_BYTES or len(self._starts) > MAX_UNIT_CHUNKS:
            raise BadVideoError(f"{self._received - self._parsed} bytes without a complete access unit")

    def finish(self) -> Iterator[Decoded]:
        """Decode the frames that were held back for their presentation order."""
        if self._chunks:
            yield from self._parse(None)
        if not self._units:
            return
        with _video_errors():
            yield from self._frames(None)
            yield from self._responses(self._outcomes.end(), 0.0)
        if not self._outcomes.any_shown:  # not all decoders report the size of frames that they refuse
            raise BadVideoError(
                f"the video has no key frame that decoding can start with ({self._format.start}), of at most "
                f"{self._max_pixels} pixels, in {self._units} packets"
            )

    def close(self) -> None:
        """Free the decoder's memory."""
        self._decoder.close()

    def _parse(self, payload: memoryview | None) -> Iterator[Decoded]:
        for packet in self._context.parse(payload):
            while self._starts[0][0] <= self._parsed:
                self._starts.popleft()
            header = self._starts[0][1]
            self._parsed += packet.size
            yield from self._unit(packet, header)

    def _unit(self, packet: "Unit", header: FrameHeader) -> Iterator[Decoded]:
        number = self._units
        packet.pts = number
        self._headers[number] = header
        self._headers.pop(number - REMEMBERED, None)
        self._units += 1
        with _video_errors():
            self._outcomes.add(number, Origin(None, bool(header.discard), bool(header.gap), header.timestamp))
            yield from self._frames(packet)
            yield from self._responses(self._outcomes.overdue(), 0.0)
            failed = self._outcomes.left_out and not self._outcomes.any_shown
            if failed and not self._chunks and (self._is_foreign(packet) or self._unit_headers.begins(packet)):
                raise BadVideoError(  # some decoders don't report the size of frames that they refuse
                    f"not {self._format.unit} that decoding can start with ({self._format.start}), "
                    f"of at most {self._max_pixels} pixels"
                )

    def _is_foreign(self, packet: "Unit") -> bool:
        """Return whether a packet isn't of the codec at all, such as one in AVCC format."""
        return self._format.start is _ANNEX_B and _START_CODE not in bytes(packet)

    def _frames(self, packet: "Unit | None") -> Iterator[Decoded]:
        started = time.perf_counter()
        for unit in self._decoder.decode(packet):
            if unit.pixels is None:
                self._video.check_size(*self._decoder.size)
            yield from self._responses(self._outcomes.decoded(unit), time.perf_counter() - started)
            started = time.perf_counter()

    def _responses(self, outcomes: Iterable[Outcome], seconds: float) -> Iterator[Decoded]:
        """Give frames and losses the headers of their packets."""
        for outcome in outcomes:
            match outcome:
                case Shown(number, _, pixels, orientation, vectors):
                    header = self._headers.pop(number, FrameHeader())
                    started = time.perf_counter()
                    turned, motion = self._video.upright(pixels, orientation, vectors)
                    seconds += time.perf_counter() - started
                    yield DecodedFrame(turned, header.id, header.timestamp, seconds, vectors=motion)
                case Lost(number, reason):
                    yield DamagedVideoError(reason, self._headers.pop(number, FrameHeader()).id)
                case Note():
                    yield outcome


@contextmanager
def _video_errors() -> Iterator[None]:
    """Turn errors of the reading of videos into the server's.

    Raises:
        BadVideoError: Too many units in a row can't be decoded.
    """
    try:
        yield
    except VideoError as error:
        raise BadVideoError(str(error)) from error
