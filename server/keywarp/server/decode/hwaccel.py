"""Decode video on hardware that FFmpeg drives: VAAPI (Intel, AMD) and QSV (Intel).

Frames are copied to the host, so everything after the decoder is the same as with the processor. It hasn't run on such
hardware yet; the tests put FFmpeg's software decoder in its place.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal, cast

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.error import FFmpegError

from keywarp.server.errors import DecoderError
from keywarp.videos import DecodedUnit, SoftwareDecoder

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

    from keywarp.videos.units import Unit

log = logging.getLogger(__name__)

Hardware = Literal["vaapi", "qsv"]
KINDS: Final[tuple[Hardware, ...]] = ("vaapi", "qsv")
# FFmpeg's decoder of each codec. QSV has decoders of its own; VAAPI accelerates FFmpeg's.
DECODERS: Final[Mapping[Hardware, Mapping[str, str]]] = {
    "vaapi": {"h264": "h264", "hevc": "hevc", "vp8": "vp8", "vp9": "vp9", "av1": "av1"},
    "qsv": {"h264": "h264_qsv", "hevc": "hevc_qsv", "vp8": "vp8_qsv", "vp9": "vp9_qsv", "av1": "av1_qsv"},
}
_NO_DELAY: Final = {"async_depth": "1"}  # otherwise QSV holds back some frames

Open = Callable[[Hardware, str], "VideoCodecContext"]


def open_context(kind: Hardware, decoder: str) -> "VideoCodecContext":
    """Open one of FFmpeg's decoders on the hardware.

    Raises:
        FFmpegError, NotImplementedError, ValueError: The hardware isn't there, or doesn't decode this.
    """
    accelerator = HWAccel(kind, allow_software_fallback=False)
    context = cast("VideoCodecContext", av.CodecContext.create(decoder, "r", accelerator))
    if not context.is_hwaccel:  # PyAV passes over devices that aren't there
        raise NotImplementedError(f"FFmpeg finds no device on which {decoder} could run")
    return context


class Hwaccel:
    """Decoding hardware. Whether it has a codec is found out once, and said in the log."""

    def __init__(self, kind: Hardware, open_: Open = open_context) -> None:
        """Describe the hardware. Nothing is opened yet.

        Args:
            kind: What FFmpeg calls it.
            open_: Opens a decoder on it.
        """
        self.kind: Hardware = kind
        self._open = open_
        self._reasons: dict[str, str | None] = {}  # why the hardware doesn't decode a codec; None: it does

    def reason(self, codec: str) -> str | None:
        """Return why the hardware doesn't decode a codec, or None if it does."""
        if codec not in self._reasons:
            self._reasons[codec] = reason = self._find_reason(codec)
            if reason:
                log.warning("the processor decodes %s, not %s: %s", codec, self.kind, reason)
            else:
                log.info("%s decodes %s", self.kind, codec)
        return self._reasons[codec]

    def open(self, context: "VideoCodecContext", max_pixels: int) -> "HwaccelDecoder | None":
        """Open a decoder for the codec of a context, or return None if the hardware doesn't decode it.

        Args:
            context: FFmpeg's codec context, not opened yet.
            max_pixels: The most pixels of a frame.
        """
        codec = context.codec.canonical_name
        if self.reason(codec):
            return None
        try:
            hardware = self._open(self.kind, DECODERS[self.kind][codec])
        except (FFmpegError, NotImplementedError, ValueError) as error:
            log.warning("a video in %s is decoded by the processor, not %s: %s", codec, self.kind, error)
            return None
        if context.extradata:
            hardware.extradata = context.extradata
        options = _NO_DELAY if self.kind == "qsv" else {}
        return HwaccelDecoder(
            self.kind, SoftwareDecoder(hardware, max_pixels, options=options), SoftwareDecoder(context, max_pixels)
        )

    def _find_reason(self, codec: str) -> str | None:
        decoder = DECODERS[self.kind].get(codec)
        if decoder is None:
            return "it has no decoder for that"
        try:
            self._open(self.kind, decoder)
        except (FFmpegError, NotImplementedError, ValueError) as error:
            return str(error)
        return None


class HwaccelDecoder:
    """Decodes one video on the hardware, or on the processor if the hardware fails on what the processor can decode."""

    def __init__(self, kind: Hardware, hardware: SoftwareDecoder, software: SoftwareDecoder) -> None:
        """Begin with the hardware.

        Args:
            kind: What FFmpeg calls the hardware.
            hardware: FFmpeg's decoder on it.
            software: The decoder on the processor.
        """
        self._kind = kind
        self._decoder = hardware
        self._software = software
        self._proven = False  # whether the decoder has decoded a frame, or there is no other

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, or zeros while they are unknown."""
        return self._decoder.size

    def decode(self, unit: "Unit | None") -> Iterator[DecodedUnit]:
        """Decode one unit; see `UnitDecoder.decode`."""
        if self._proven:
            yield from self._decoder.decode(unit)
            return
        items = [*self._decoder.decode(unit)]
        if any(item.pixels is None for item in items):
            others = [*self._software.decode(unit)]
            if all(item.pixels is not None for item in others):  # so it isn't damaged
                log.warning("a video is decoded by the processor, because %s failed on it", self._kind)
                self._decoder, self._proven, items = self._software, True, others
        self._proven = self._proven or any(item.pixels is not None for item in items)
        yield from items

    def close(self) -> None:
        """Free all resources."""
        self._decoder.close()
        self._software.close()


def open_hwaccel(kind: Hardware, open_: Open = open_context) -> Hwaccel:
    """Open decoding hardware.

    Raises:
        DecoderError: FFmpeg was built without it, or there is none, or it decodes no H.264.
    """
    if open_ is open_context and kind not in hwdevices_available():
        raise DecoderError(
            f"{kind} can't decode video: PyAV's FFmpeg was built without it, and has "
            f"{', '.join(hwdevices_available()) or 'none'} (docs/server.md, Video on an Intel GPU)"
        )
    found = Hwaccel(kind, open_)
    if reason := found.reason("h264"):
        raise DecoderError(f"{kind} can't decode video: {reason}")
    return found
