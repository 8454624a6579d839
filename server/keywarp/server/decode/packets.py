"""Decode packets of H.264, HEVC, VP8, VP9 and AV1, and byte streams of the first two.

Without B-frames, packets are decoded without delay. A byte stream is one frame late, because a unit ends only where the
next one begins.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import av

from keywarp.protocol import FrameHeader, PacketCodec
from keywarp.server.decode.frames import Decoded
from keywarp.server.decode.nvdec import Nvdec
from keywarp.server.decode.video import VideoDecoder
from keywarp.server.errors import BadVideoError

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

    from keywarp.server.decode.units import Unit

MAX_UNIT_BYTES: Final = 16 * 2**20  # bytes of an access unit that is still incomplete
MAX_UNIT_CHUNKS: Final = 4096  # chunks that such a unit may be spread over
_REORDERING: Final = 64  # units whose headers wait for their frames; H.264 and HEVC reorder at most 16


@dataclass(frozen=True, slots=True)
class _Format:
    decoder: str  # the name of FFmpeg's decoder
    unit: str  # what one packet holds, for error messages
    start: str  # what the first packet must hold, for error messages


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

    def __init__(
        self,
        codec: PacketCodec,
        max_pixels: int,
        nvdec: Nvdec | None = None,
        *,
        chunks: bool = False,
        vectors: bool = False,
    ) -> None:
        """Set up a decoder.

        Args:
            codec: The packets' codec.
            max_pixels: The most pixels of a frame. Larger ones are refused.
            nvdec: The GPU's decoding hardware, used for the codecs that it has, or None for the processor.
            chunks: Whether payloads are pieces of a byte stream (H.264 and HEVC only).
            vectors: Whether frames come with their motion vectors, if the codec's decoder exports them.
        """
        self._format = _FORMATS[codec]
        self._max_pixels = max_pixels
        self._context = cast("VideoCodecContext", av.CodecContext.create(self._format.decoder, "r"))
        self._video = VideoDecoder(max_pixels, nvdec, vectors=vectors)
        self._decoder = self._video.open(self._context)
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
        if self._units:
            yield from self._frames(None, FrameHeader())
            self._video.check_has_frame()

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
        packet.pts = self._units
        self._headers[self._units] = header
        self._headers.pop(self._units - _REORDERING, None)
        self._units += 1
        yield from self._frames(packet, header)

    def _frames(self, packet: "Unit | None", header: FrameHeader) -> Iterator[Decoded]:
        started = time.perf_counter()
        for pixels, number, vectors in self._decoder.decode(packet):
            origin = header if number is None else self._headers.pop(number, header)
            if pixels is not None:
                yield self._video.frame(pixels, origin.id, origin.timestamp, started, vectors)
                started = time.perf_counter()
                continue
            yield from self._video.unit_failed(self._decoder, origin.id)
            if not self._chunks and not self._video.has_frame:
                raise BadVideoError(  # some decoders don't report the size of frames that they refuse
                    f"not {self._format.unit} that decoding can start with ({self._format.start}), "
                    f"of at most {self._max_pixels} pixels"
                )
