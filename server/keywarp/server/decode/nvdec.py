"""Decode video with the hardware of an NVIDIA GPU, through NVIDIA's PyNvVideoCodec, which is imported only on request.

Frames are copied to the host as RGB, so the later stages are the same as with FFmpeg. FFmpeg demuxes. Its parsers read
the headers of every unit first, because the hardware reports two things too late: the size of the frames, which is
needed before memory is allocated for them, and the units at which decoding can start.
"""

import ctypes
import importlib
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError

from keywarp.server.decode.units import SoftwareDecoder
from keywarp.server.errors import DecoderError

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

    from keywarp.server.decode.units import DecodedUnit, Unit

log = logging.getLogger(__name__)

# PyNvVideoCodec's names of the codecs, by FFmpeg's names. VP8 is left out because some of its units show no frame, so
# lost units can't be detected. VP9 is left out because FFmpeg's parser doesn't report its size.
CODECS: Final[Mapping[str, str]] = {"h264": "H264", "hevc": "HEVC", "av1": "AV1"}
# For units from containers: these filters put the parameter sets before every key frame, in Annex-B format.
_FILTERS: Final[Mapping[str, str]] = {
    "h264": "h264_mp4toannexb,dump_extra",
    "hevc": "hevc_mp4toannexb,dump_extra",
}
_REORDERING: Final = 17  # units after which a missing frame is lost; H.264 and HEVC reorder at most 16
_GPU: Final = 0  # the index of the GPU in CUDA's order
_ERROR_PREFIX: Final = "Error Type : "  # begins the informative line of PyNvVideoCodec's messages


class Nvdec:
    """The decoding hardware of a GPU.

    Attributes:
        codecs: FFmpeg's names of the codecs that it decodes.
    """

    def __init__(self, api: Any, codecs: Collection[str]) -> None:
        """Use PyNvVideoCodec. Nothing is opened yet.

        Args:
            api: The module `PyNvVideoCodec`.
            codecs: The codecs of `CODECS` that the hardware supports.
        """
        self._api = api
        self.codecs = frozenset(codecs)

    def open(self, codec: str) -> Any:
        """Open a PyNvVideoCodec decoder whose frames are RGB on the host.

        The decoder runs in low-latency mode, which returns a frame with its unit unless the video reorders frames. The
        default mode is one unit late, so a client that waits for each response before it sends the next unit would wait
        forever.

        Args:
            codec: FFmpeg's name of the codec, one of `codecs`.
        """
        return self._api.CreateDecoder(
            gpuid=_GPU,
            codec=getattr(self._api.cudaVideoCodec, CODECS[codec]),
            usedevicememory=False,
            outputColorType=self._api.OutputColorType.RGB,
            latency=self._api.DisplayDecodeLatencyType.LOW,
        )

    def packet(self, unit: "Unit", number: int, *, whole: bool) -> Any:
        """Wrap a unit for PyNvVideoCodec. The packet points into the unit's memory.

        Args:
            unit: The unit in elementary-stream form.
            number: The number that its frame will carry as pts.
            whole: Whether the unit is exactly one picture, so that the hardware needn't wait for the next unit to find
                its end.
        """
        packet = self._api.PacketData()
        packet.bsl_data, packet.bsl, packet.pts = unit.buffer_ptr, unit.size, number
        if whole:
            packet.decode_flag = int(self._api.VideoPacketFlag.ENDOFPICTURE)
        return packet

    def end(self) -> Any:
        """Return the packet that ends a video."""
        return self._api.PacketData()


def open_nvdec() -> Nvdec:
    """Find the decoding hardware of the first GPU.

    Raises:
        DecoderError: PyNvVideoCodec isn't installed or can't be used, or the GPU decodes none of `CODECS`.
    """
    try:
        api = importlib.import_module("PyNvVideoCodec")
        codecs = {codec for codec, name in CODECS.items() if _is_supported(api, name)}
    except ModuleNotFoundError as error:
        raise DecoderError(
            f"decoding on a GPU needs {error.name}: install the extra `nvdec` (README, Install)"
        ) from error
    except Exception as error:  # PyNvVideoCodec's errors have no common base class
        raise DecoderError(
            f"the GPU's video decoder can't be used: {_reason(error)} (is NVIDIA's driver there, and in a container "
            "its capability `video`?)"
        ) from error
    if not codecs:
        raise DecoderError(f"the GPU decodes none of {', '.join(CODECS)}")
    log.info("the GPU decodes %s", ", ".join(sorted(codecs)))
    for codec in sorted(CODECS.keys() - codecs):
        log.warning("the GPU doesn't decode %s: the processor does", codec)
    return Nvdec(api, codecs)


def _is_supported(api: Any, codec: str) -> bool:
    return bool(api.GetDecoderCaps(gpuid=_GPU, codec=getattr(api.cudaVideoCodec, codec))["supported"])


class NvdecDecoder:
    """Decodes one video on the GPU, or on the processor from the first key frame on that the GPU can't decode."""

    def __init__(
        self,
        nvdec: Nvdec,
        context: "VideoCodecContext",
        max_pixels: int,
        stream: "VideoStream | None" = None,
    ) -> None:
        """Set up a decoder. The hardware's decoder is opened at the first key frame.

        Args:
            nvdec: The GPU's decoding hardware, which must support the codec.
            context: FFmpeg's context of the video's codec, which decodes if the GPU can't.
            max_pixels: The most pixels of a frame. Larger ones are refused before anything is allocated.
            stream: The container's stream that the units come from, or None if they don't come from a container.
        """
        self._nvdec = nvdec
        self._codec = context.codec.canonical_name
        self._software = SoftwareDecoder(context, max_pixels)
        self._max_pixels = max_pixels
        self._headers = _Headers(context)
        filters = _FILTERS.get(self._codec) if stream else None
        self._filter = BitStreamFilterContext(filters, stream) if filters else None
        self._on_gpu = True
        self._decoder: Any = None  # PyNvVideoCodec's decoder, for frames of one size
        self._size = (0, 0)  # width and height that the decoder was opened for
        self._units = 0
        self._waiting: dict[int, int | None] = {}  # the pts of units without a frame yet, by the unit's number

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels according to the headers of the last unit."""
        return self._headers.size if self._on_gpu else self._software.size

    def decode(self, unit: "Unit | None") -> "Iterator[DecodedUnit]":
        """Decode one unit; see `UnitDecoder.decode`."""
        if not self._on_gpu:
            yield from self._software.decode(unit)
        elif unit is None or not unit.size:
            yield from self._drain()
        else:
            yield from self._decode_on_gpu(unit)

    def close(self) -> None:
        """Free the hardware's memory."""
        self._decoder = None
        self._waiting.clear()

    def _decode_on_gpu(self, unit: "Unit") -> "Iterator[DecodedUnit]":
        try:
            plain = self._to_elementary(unit)
        except FFmpegError:
            yield None, unit.pts
            return
        key = self._headers.read(plain)
        if key and self._headers.size != self._size:  # a decoder would scale later frames to its first size
            yield from self._drain()
        if self._decoder is not None:
            try:
                items = self._push(plain)
            except Exception as error:  # noqa: BLE001 - PyNvVideoCodec's errors have no common base class
                log.debug("the GPU failed on a unit in %s: %s", self._codec, _reason(error))
                self._waiting.popitem()  # this unit
                yield from self._drop_decoder()
            else:
                yield from items
                return
        if not key or self._headers.pixels > self._max_pixels:
            yield None, unit.pts
            return
        try:
            self._size = self._headers.size
            self._decoder = self._nvdec.open(self._codec)
            items = self._push(plain)
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("a video in %s is decoded by the processor, not the GPU: %s", self._codec, _reason(error))
            self.close()
            self._on_gpu = False
            yield from self._software.decode(unit)
        else:
            yield from items

    def _to_elementary(self, unit: "Unit") -> "Unit":
        """Return a unit in elementary-stream form."""
        if not self._filter:
            return unit
        copy = av.Packet(bytes(unit))  # the filter consumes its packet, but the unit may still be needed
        copy.pts, copy.is_keyframe = unit.pts, unit.is_keyframe
        [plain] = self._filter.filter(copy)
        return plain

    def _push(self, unit: "Unit") -> "list[DecodedUnit]":
        self._waiting[self._units] = unit.pts
        # A temporal unit of AV1 may hold several pictures, of which one is shown.
        packet = self._nvdec.packet(unit, self._units, whole=self._codec != "av1")
        items: list[DecodedUnit] = [*self._frames(packet)]
        self._units += 1
        while self._waiting and (oldest := next(iter(self._waiting))) < self._units - _REORDERING:
            items.append((None, self._waiting.pop(oldest)))  # the hardware doesn't report units that it can't decode
        return items

    def _drain(self) -> "list[DecodedUnit]":
        """End the decoder. Return the frames that it held back, and the units that are lost."""
        items: list[DecodedUnit] = []
        if self._decoder is not None:
            try:
                items += self._frames(self._nvdec.end())
            except Exception as error:  # noqa: BLE001 - as above
                log.debug("the GPU failed at the end of a video: %s", _reason(error))
        return [*items, *self._drop_decoder()]

    def _drop_decoder(self) -> "list[DecodedUnit]":
        """Free the decoder, and return the units that still waited for their frames as lost."""
        self._decoder = None
        lost: list[DecodedUnit] = [(None, pts) for pts in self._waiting.values()]
        self._waiting.clear()
        return lost

    def _frames(self, packet: Any) -> "list[DecodedUnit]":
        """Decode a packet, and copy its frames, because the next call overwrites their memory."""
        width, height = self._size
        frames: list[DecodedUnit] = []
        for surface in self._decoder.Decode(packet):
            shape = tuple(surface.cuda()[0].shape)  # (H, W, 3), W rounded up to an even number
            memory = ctypes.c_uint8 * math.prod(shape)
            pixels = np.ctypeslib.as_array(memory.from_address(surface.GetPtrToPlane(0))).reshape(shape)
            frames.append((pixels[:height, :width].copy(), self._waiting.pop(surface.getPTS(), None)))
        return frames


class _Headers:
    """Reads the headers of units with FFmpeg's parser."""

    def __init__(self, context: "VideoCodecContext") -> None:
        self._parser = cast("VideoCodecContext", av.CodecContext.create(context.name, "r"))
        self.size = (0, 0)

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    def read(self, unit: "Unit") -> bool:
        """Read the headers of a unit, and return whether decoding can start with it."""
        packets = self._parser.parse(bytes(unit))
        self._parser.width = self._parser.height = 0  # the parser sets the size only if it is unknown
        packets += self._parser.parse(None)  # ends the unit; otherwise the parser waits for the next one
        self.size = self._parser.width, self._parser.height
        return any(packet.is_keyframe for packet in packets) and bool(self.pixels)


def _reason(error: Exception) -> str:
    """Return the informative line of an error: the one with the type of error if there is one, else the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line.removeprefix(_ERROR_PREFIX) for line in lines if line.startswith(_ERROR_PREFIX)), lines[0])
