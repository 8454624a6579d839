"""Packets of a video to pictures: H.264, HEVC, VP8, VP9 and AV1, and byte streams of the first two.

There is no delay without B-frames; in chunks it is one frame, since a unit ends only where the next begins.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import av

from keywarp.protocol import FrameHeader, PacketCodec
from keywarp.server.decode.frames import Damage, Picture
from keywarp.server.decode.nvdec import Nvdec
from keywarp.server.decode.units import Undecodable
from keywarp.server.decode.video import Screen
from keywarp.server.errors import BadVideoError

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

    from keywarp.server.decode.units import Unit

MAX_UNIT_BYTES: Final = 16 * 2**20  # of one access unit that is still incomplete
MAX_UNIT_CHUNKS: Final = 4096
_REORDERING: Final = 64  # units whose headers wait for their frames; H.264 and HEVC reorder at most 16


@dataclass(frozen=True, slots=True)
class _Format:
    decoder: str  # FFmpeg's
    unit: str  # what one packet is
    start: str  # what decoding can start with


_ANNEX_B = "parameter sets and a key frame"
_FORMATS: Final[Mapping[PacketCodec, _Format]] = {
    "h264": _Format("h264", "an H.264 access unit in Annex-B format", _ANNEX_B),
    "hevc": _Format("hevc", "an HEVC access unit in Annex-B format", _ANNEX_B),
    "vp8": _Format("vp8", "a VP8 frame", "a key frame"),
    "vp9": _Format("vp9", "a VP9 frame or superframe", "a key frame"),
    "av1": _Format("libdav1d", "an AV1 temporal unit", "a sequence header and a key frame"),
}


class PacketDecoder:
    """One video, unit by unit or, in chunks, as an Annex-B byte stream.

    In packets, each payload is one unit, and its frame bears its id and timestamp, whatever the order in which frames
    are shown. In chunks, a frame bears those of the chunk in which its access unit begins.
    """

    def __init__(
        self, codec: PacketCodec, max_pixels: int, nvdec: Nvdec | None = None, *, chunks: bool = False
    ) -> None:
        """Set a decoder up.

        Args:
            codec: What the packets are.
            max_pixels: Of a frame; larger ones are refused.
            nvdec: What decodes where it can; None: the processor.
            chunks: Payloads are pieces of a byte stream (H.264 and HEVC only).
        """
        self._format = _FORMATS[codec]
        self._max_pixels = max_pixels
        self._context = cast("VideoCodecContext", av.CodecContext.create(self._format.decoder, "r"))
        self._screen = Screen(max_pixels, nvdec)
        self._decoder = self._screen.decoder(self._context)
        self._chunks = chunks
        self._units = 0
        self._headers: dict[int, FrameHeader] = {}  # by the unit's number, which decoders carry along as its pts
        self._starts: deque[tuple[int, FrameHeader]] = deque()  # where each chunk ends in the byte stream
        self._received = 0  # bytes
        self._parsed = 0  # bytes

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Picture | Damage]:
        """The frames that this payload completes."""
        if not payload:  # to FFmpeg, this means the end
            raise BadVideoError("a video message without content")
        if not self._chunks:
            yield from self._unit(av.Packet(bytes(payload)), header)
            return
        self._received += len(payload)
        self._starts.append((self._received, header))
        yield from self._parse(payload)
        if self._received - self._parsed > MAX_UNIT_BYTES or len(self._starts) > MAX_UNIT_CHUNKS:
            raise BadVideoError(f"{self._received - self._parsed} bytes without a complete access unit")

    def finish(self) -> Iterator[Picture | Damage]:
        """The frames that were held back for their order."""
        if self._chunks:
            yield from self._parse(None)
        if self._units:
            yield from self._frames(None, FrameHeader())
            self._screen.check_used()

    def close(self) -> None:
        """Free the decoder's memory."""
        self._decoder.close()

    def _parse(self, payload: memoryview | None) -> Iterator[Picture | Damage]:
        for packet in self._context.parse(payload):
            while self._starts[0][0] <= self._parsed:
                self._starts.popleft()
            header = self._starts[0][1]
            self._parsed += packet.size
            yield from self._unit(packet, header)

    def _unit(self, packet: "Unit", header: FrameHeader) -> Iterator[Picture | Damage]:
        packet.pts = self._units
        self._headers[self._units] = header
        self._headers.pop(self._units - _REORDERING, None)
        self._units += 1
        yield from self._frames(packet, header)

    def _frames(self, packet: "Unit | None", header: FrameHeader) -> Iterator[Picture | Damage]:
        started = time.perf_counter()
        for item in self._decoder.decode(packet):
            origin = header if item.pts is None else self._headers.pop(item.pts, header)
            if not isinstance(item, Undecodable):
                yield self._screen.picture(item, origin.id, origin.timestamp, started)
                started = time.perf_counter()
                continue
            yield from self._screen.failed(self._decoder, origin.id)
            if not self._chunks and not self._screen.used:
                raise BadVideoError(  # some decoders don't tell how large what they refuse is
                    f"not {self._format.unit} that decoding can start with ({self._format.start}), "
                    f"of at most {self._max_pixels} pixels"
                )
