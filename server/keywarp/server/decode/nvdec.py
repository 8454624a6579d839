"""Video decoded by the hardware of an NVIDIA GPU, through NVIDIA's PyNvVideoCodec; only imported where it is asked for.

Frames come back to the host as RGB, so that whatever follows is as with FFmpeg. FFmpeg demuxes, and its parsers read
the headers of every unit first, for what the hardware doesn't say in time: how large the frames will be, before
anything is allocated for them, and where decoding can start.
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

# FFmpeg's name of a codec, and PyNvVideoCodec's. Not VP8 and VP9: units of the one may show nothing, so that it can't
# be told which are lost, and of the other FFmpeg's parser doesn't tell the size.
CODECS: Final[Mapping[str, str]] = {"h264": "H264", "hevc": "HEVC", "av1": "AV1"}
# From containers: parameter sets into the stream, before every key frame, as Annex B has them.
_FILTERS: Final[Mapping[str, str]] = {
    "h264": "h264_mp4toannexb,dump_extra",
    "hevc": "hevc_mp4toannexb,dump_extra",
}
_REORDERING: Final = 17  # units that may come before the frame of another: H.264 and HEVC reorder at most 16
_GPU: Final = 0  # CUDA's first
_KIND: Final = "Error Type : "  # begins a line of PyNvVideoCodec's messages


class Nvdec:
    """The decoding hardware of a GPU.

    Attributes:
        codecs: What it decodes, as FFmpeg calls it.
    """

    def __init__(self, api: Any, codecs: Collection[str]) -> None:
        """Nothing is opened yet.

        Args:
            api: The module `PyNvVideoCodec`.
            codecs: Of `CODECS`, what the hardware has.
        """
        self._api = api
        self.codecs = frozenset(codecs)

    def open(self, codec: str) -> Any:
        """A PyNvVideoCodec decoder whose frames are RGB on the host.

        In its mode for low latency a frame comes with its unit, unless the video reorders: a client that waits for each
        answer before it sends on would wait for ever in the other, which is a unit late.
        """
        return self._api.CreateDecoder(
            gpuid=_GPU,
            codec=getattr(self._api.cudaVideoCodec, CODECS[codec]),
            usedevicememory=False,
            outputColorType=self._api.OutputColorType.RGB,
            latency=self._api.DisplayDecodeLatencyType.LOW,
        )

    def packet(self, unit: "Unit", number: int, *, whole: bool) -> Any:
        """A unit as PyNvVideoCodec takes it: it points into the unit's memory.

        Args:
            unit: As it stands in an elementary stream.
            number: What its frame will bear.
            whole: It is one picture and no more: the hardware needn't wait for the next to know where it ends.
        """
        packet = self._api.PacketData()
        packet.bsl_data, packet.bsl, packet.pts = unit.buffer_ptr, unit.size, number
        if whole:
            packet.decode_flag = int(self._api.VideoPacketFlag.ENDOFPICTURE)
        return packet

    def end(self) -> Any:
        """What ends a video."""
        return self._api.PacketData()


def open_nvdec() -> Nvdec:
    """The first GPU's decoding hardware.

    Raises:
        DecoderError: PyNvVideoCodec isn't installed, or finds no driver or nothing that decodes.
    """
    try:
        api = importlib.import_module("PyNvVideoCodec")
        codecs = {codec for codec, name in CODECS.items() if _has(api, name)}
    except ModuleNotFoundError as error:
        raise DecoderError(
            f"decoding on a GPU needs {error.name}: install the extra `nvdec` (README, Install)"
        ) from error
    except Exception as error:  # its errors have no common base
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


def _has(api: Any, codec: str) -> bool:
    return bool(api.GetDecoderCaps(gpuid=_GPU, codec=getattr(api.cudaVideoCodec, codec))["supported"])


class NvdecDecoder:
    """One video on the GPU; on the processor from where the GPU doesn't take it."""

    def __init__(
        self,
        nvdec: Nvdec,
        context: "VideoCodecContext",
        max_pixels: int,
        stream: "VideoStream | None" = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            nvdec: What decodes; it must have the codec.
            context: FFmpeg's, which tells the codec, and decodes in its place.
            max_pixels: Of a frame; more is refused before anything is allocated.
            stream: Where the units come from, if they come out of a container.
        """
        self._nvdec = nvdec
        self._codec = context.codec.canonical_name
        self._software = SoftwareDecoder(context, max_pixels)
        self._max_pixels = max_pixels
        self._headers = _Headers(context)
        filters = _FILTERS.get(self._codec) if stream else None
        self._filter = BitStreamFilterContext(filters, stream) if filters else None
        self._on_gpu = True
        self._decoder: Any = None  # PyNvVideoCodec's, of one size of frames
        self._size = (0, 0)  # what it was opened for
        self._units = 0
        self._waiting: dict[int, int | None] = {}  # units without a frame yet: pts by number

    @property
    def size(self) -> tuple[int, int]:
        """By the last unit's headers."""
        return self._headers.size if self._on_gpu else self._software.size

    def decode(self, unit: "Unit | None") -> "Iterator[DecodedUnit]":
        """As `UnitDecoder`."""
        if not self._on_gpu:
            yield from self._software.decode(unit)
        elif unit is None or not unit.size:
            yield from self._drain()
        else:
            yield from self._take(unit)

    def close(self) -> None:
        """Free the hardware's memory."""
        self._decoder = None
        self._waiting.clear()

    def _take(self, unit: "Unit") -> "Iterator[DecodedUnit]":
        try:
            plain = self._plain(unit)
        except FFmpegError:
            yield None, unit.pts
            return
        key = self._headers.read(plain)
        if key and self._headers.size != self._size:  # a decoder scales what follows to the size that it has begun with
            yield from self._drain()
        if self._decoder is not None:
            try:
                items = self._push(plain)
            except Exception as error:  # noqa: BLE001 - its errors have no common base
                log.debug("the GPU failed on a unit in %s: %s", self._codec, _reason(error))
                self._waiting.popitem()  # this unit
                yield from self._give_up()
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

    def _plain(self, unit: "Unit") -> "Unit":
        """A unit as it stands in an elementary stream."""
        if not self._filter:
            return unit
        copy = av.Packet(bytes(unit))  # which the filter takes, while the unit may still be wanted
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
            items.append((None, self._waiting.pop(oldest)))  # over what it can't decode, the hardware is silent
        return items

    def _drain(self) -> "list[DecodedUnit]":
        """End the decoder: what it holds back, and what will never come."""
        items: list[DecodedUnit] = []
        if self._decoder is not None:
            try:
                items += self._frames(self._nvdec.end())
            except Exception as error:  # noqa: BLE001 - as above
                log.debug("the GPU failed at an end: %s", _reason(error))
        return [*items, *self._give_up()]

    def _give_up(self) -> "list[DecodedUnit]":
        self._decoder = None
        lost: list[DecodedUnit] = [(None, pts) for pts in self._waiting.values()]
        self._waiting.clear()
        return lost

    def _frames(self, packet: Any) -> "list[DecodedUnit]":
        """Decode and copy: the next call decodes into the same memory."""
        width, height = self._size
        frames: list[DecodedUnit] = []
        for surface in self._decoder.Decode(packet):
            shape = tuple(surface.cuda()[0].shape)  # (H, W, 3), W rounded up to an even number
            memory = ctypes.c_uint8 * math.prod(shape)
            pixels = np.ctypeslib.as_array(memory.from_address(surface.GetPtrToPlane(0))).reshape(shape)
            frames.append((pixels[:height, :width].copy(), self._waiting.pop(surface.getPTS(), None)))
        return frames


class _Headers:
    """Reads the headers of units by FFmpeg's parser."""

    def __init__(self, context: "VideoCodecContext") -> None:
        self._parser = cast("VideoCodecContext", av.CodecContext.create(context.name, "r"))
        self.size = (0, 0)

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    def read(self, unit: "Unit") -> bool:
        """Read a unit's; returns whether decoding can start with it."""
        packets = self._parser.parse(bytes(unit))
        self._parser.width = self._parser.height = 0  # which is only set where it isn't known
        packets += self._parser.parse(None)  # no more of this unit: parsers wait for the next to see where it ends
        self.size = self._parser.width, self._parser.height
        return any(packet.is_keyframe for packet in packets) and bool(self.pixels)


def _reason(error: Exception) -> str:
    """The line that matters: of a failed call there is one that says so, of others the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line.removeprefix(_KIND) for line in lines if line.startswith(_KIND)), lines[0])
