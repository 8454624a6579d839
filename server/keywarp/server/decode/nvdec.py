"""Decode video on the hardware of an NVIDIA GPU, with NVIDIA's PyNvVideoCodec, which is imported only when it is used.

Frames are RGB. They stay on the GPU if the stream's model runs there with a backend that prepares them, and otherwise
they are copied to the host, so that everything after the decoder is the same as with FFmpeg. FFmpeg demuxes, and its
parsers read the headers of every unit first. They tell two things that the hardware doesn't tell in time: how large
the frames are, before anything is allocated for them, and whether decoding can start with the unit.
"""

import ctypes
import importlib
import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError

from keywarp.engines import BackendError
from keywarp.engines.frames import FrameStore
from keywarp.server.errors import DecoderError
from keywarp.videos import REMEMBERED, REORDERING, DecodedUnit, SoftwareDecoder

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from keywarp.videos.units import Unit

log = logging.getLogger(__name__)

# FFmpeg's name of a codec, and PyNvVideoCodec's. VP8 is left out because its units may have no frame to show, so lost
# frames can't be recognized, and VP9 because FFmpeg's parser doesn't tell the size of its frames.
CODECS: Final[Mapping[str, str]] = {"h264": "H264", "hevc": "HEVC", "av1": "AV1"}
# Filters for units of containers. They put the parameter sets into the stream before every key frame (Annex B).
_FILTERS: Final[Mapping[str, str]] = {
    "h264": "h264_mp4toannexb,dump_extra",
    "hevc": "hevc_mp4toannexb,dump_extra",
}
_GPU: Final = 0  # the first GPU as CUDA counts
_KIND: Final = "Error Type : "  # the start of the line in PyNvVideoCodec's messages that names the error


class Nvdec:
    """The decoding hardware of a GPU.

    Attributes:
        codecs: The codecs that the hardware decodes, by FFmpeg's names.
    """

    def __init__(self, api: Any, codecs: Collection[str]) -> None:
        """Describe the hardware. Nothing is opened yet.

        Args:
            api: The module `PyNvVideoCodec`.
            codecs: Those of `CODECS` that the hardware decodes.
        """
        self._api = api
        self.codecs = frozenset(codecs)

    def open(self, codec: str, store: FrameStore | None = None) -> Any:
        """Open a decoder of PyNvVideoCodec whose frames are RGB, on the host or for a store on this GPU.

        It uses the mode for low latency, in which a frame comes with its unit unless the video reorders frames. The
        other mode is one unit late, so a client that waits for each result before it sends more would wait forever.
        """
        return self._api.CreateDecoder(
            gpuid=_GPU,
            codec=getattr(self._api.cudaVideoCodec, CODECS[codec]),
            usedevicememory=store is not None,
            outputColorType=self._api.OutputColorType.RGB,
            latency=self._api.DisplayDecodeLatencyType.LOW,
            **({"cudacontext": store.context, "cudastream": store.stream} if store else {}),
        )

    def packet(self, unit: "Unit", number: int, *, whole: bool) -> Any:
        """Wrap a unit for PyNvVideoCodec. The result points into the unit's memory.

        Args:
            unit: A unit in the form of an elementary stream.
            number: The number that the unit's frame will bear.
            whole: Whether the unit is exactly one picture, so that the hardware needn't wait for the next unit to know
                where the picture ends.
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
    """Open the decoding hardware of the first GPU.

    Raises:
        DecoderError: PyNvVideoCodec isn't installed, finds no driver, or the GPU decodes none of `CODECS`.
    """
    try:
        api = importlib.import_module("PyNvVideoCodec")
        codecs = {codec for codec, name in CODECS.items() if _has(api, name)}
    except ModuleNotFoundError as error:
        raise DecoderError(
            f"decoding on a GPU needs {error.name}: install the extra `nvdec` (README, Install)"
        ) from error
    except Exception as error:  # PyNvVideoCodec's errors have no common base
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
    """Decodes one video on the GPU, or on the processor from the point on where the GPU doesn't support it."""

    def __init__(
        self,
        nvdec: Nvdec,
        context: "VideoCodecContext",
        max_pixels: int,
        stream: "VideoStream | None" = None,
        *,
        vectors: bool = False,
        store: FrameStore | None = None,
    ) -> None:
        """Set up a decoder. Nothing is opened yet.

        Args:
            nvdec: The decoding hardware, which must have the video's codec.
            context: FFmpeg's codec context, not opened yet. It tells the codec, and decodes if the GPU can't.
            max_pixels: The most pixels of a frame. Larger ones are refused before anything is allocated.
            stream: The container's stream that the units come from, or None if they don't come from a container.
            vectors: Whether frames have their motion vectors where the processor decodes. The hardware gives none.
            store: What keeps frames on the GPU, or None to copy them to the host. One on another GPU isn't used.
        """
        self._nvdec = nvdec
        self._codec = context.codec.canonical_name
        self._software = SoftwareDecoder(context, max_pixels, vectors=vectors)
        self._max_pixels = max_pixels
        self._store = store if store and store.gpu == _GPU else None
        self._headers = UnitHeaders(context)
        filters = _FILTERS.get(self._codec) if stream else None
        self._filter = BitStreamFilterContext(filters, stream) if filters else None
        self._on_gpu = True
        self._decoder: Any = None  # the decoder of PyNvVideoCodec, for one size of frames
        self._size = (0, 0)  # width and height that it was opened for
        self._looks = DecodedUnit(None, None)  # what the hardware doesn't tell about frames
        self._units = 0
        self._waiting: dict[int, int | None] = {}  # the pts of units without a frame yet, by the unit's number

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels by the last unit's headers."""
        return self._headers.size if self._on_gpu else self._software.size

    def decode(self, unit: "Unit | None") -> Iterator[DecodedUnit]:
        """Decode the frames that a unit completes: see `UnitDecoder`."""
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

    def _take(self, unit: "Unit") -> Iterator[DecodedUnit]:
        try:
            plain = self._plain(unit)
        except FFmpegError:
            yield DecodedUnit(None, unit.pts)
            return
        key = self._headers.begins(plain) and bool(self._headers.pixels)
        if key and self._headers.size != self._size:  # a decoder would scale new frames to the size of its first one
            yield from self._drain()
        if self._decoder is not None:
            try:
                items = self._push(plain)
            except Exception as error:  # noqa: BLE001 - PyNvVideoCodec's errors have no common base
                log.debug("the GPU failed on a unit in %s: %s", self._codec, _reason(error))
                self._waiting.popitem()  # this unit, which is tried again below if it is a key frame
                yield from self._give_up()
            else:
                yield from items
                return
        if not key or self._headers.pixels > self._max_pixels:
            yield DecodedUnit(None, unit.pts)
            return
        try:
            self._size = self._headers.size
            self._looks = self._software.looks(unit)
            self._decoder = self._nvdec.open(self._codec, self._store)
            items = self._push(plain)
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("a video in %s is decoded by the processor, not the GPU: %s", self._codec, _reason(error))
            self.close()
            self._on_gpu = False
            yield from self._software.decode(unit)
        else:
            yield from items

    def _plain(self, unit: "Unit") -> "Unit":
        """Convert a unit of a container into the form of an elementary stream."""
        if not self._filter:
            return unit
        copy = av.Packet(bytes(unit))  # the filter consumes it, but the unit may still be needed
        copy.pts, copy.is_keyframe = unit.pts, unit.is_keyframe
        [plain] = self._filter.filter(copy)
        return plain

    def _push(self, unit: "Unit") -> list[DecodedUnit]:
        self._waiting[self._units] = unit.pts
        # A temporal unit of AV1 may hold several pictures, only one of which is shown.
        packet = self._nvdec.packet(unit, self._units, whole=self._codec != "av1")
        items: list[DecodedUnit] = [*self._frames(packet)]
        self._units += 1
        held = REMEMBERED if self._looks.interlaced else REORDERING
        while self._waiting and (oldest := next(iter(self._waiting))) < self._units - held:
            items += self._missing([self._waiting.pop(oldest)])
        return items

    def _missing(self, units: Iterable[int | None]) -> list[DecodedUnit]:
        """Return units without a frame as failed, which the hardware doesn't report, unless they may be second fields.

        Args:
            units: The units' pts.
        """
        return [] if self._looks.interlaced else [DecodedUnit(None, pts) for pts in units]

    def _drain(self) -> list[DecodedUnit]:
        """Close the decoder, and return the frames that it held back and the units that have none."""
        items: list[DecodedUnit] = []
        if self._decoder is not None:
            try:
                items += self._frames(self._nvdec.end())
            except Exception as error:  # noqa: BLE001 - as above
                log.debug("the GPU failed to finish a video in %s: %s", self._codec, _reason(error))
        return [*items, *self._give_up()]

    def _give_up(self) -> list[DecodedUnit]:
        """Close the decoder, and return its units without a frame as failed."""
        self._decoder = None
        lost = self._missing(self._waiting.values())
        self._waiting.clear()
        return lost

    def _frames(self, packet: Any) -> list[DecodedUnit]:
        """Decode a packet and copy its frames, because the next call overwrites their memory."""
        width, height = self._size
        frames: list[DecodedUnit] = []
        for surface in self._decoder.Decode(packet):
            address = surface.GetPtrToPlane(0)
            if self._store:
                try:
                    kept = self._store.keep(address, surface.strides[0], height, width)
                except BackendError as error:
                    log.warning("frames stay no longer on the GPU: %s", error)
                    self._store = None  # the decoder's next one, from the next key frame on, copies to the host
                    raise
                # What reads videos only hands the pixels on, and knows of no other type.
                pixels = cast("NDArray[np.uint8]", kept)
            else:
                shape = tuple(surface.shape)  # (H, W, 3), W rounded up to an even number
                memory = ctypes.c_uint8 * math.prod(shape)
                pixels = np.ctypeslib.as_array(memory.from_address(address)).reshape(shape)[:height, :width].copy()
            pts = self._waiting.pop(surface.getPTS(), None)
            frames.append(self._looks._replace(pixels=pixels, pts=pts))
        return frames


class UnitHeaders:
    """Reads the headers of units with FFmpeg's parser."""

    def __init__(self, context: "VideoCodecContext") -> None:
        self._parser = cast("VideoCodecContext", av.CodecContext.create(context.name, "r"))
        self.size = (0, 0)

    @property
    def pixels(self) -> int:
        """The number of pixels of the last unit's frame, or 0 while it is unknown."""
        return self.size[0] * self.size[1]

    def begins(self, unit: "Unit") -> bool:
        """Read the headers of a unit, and return whether decoding can start with it."""
        packets = self._parser.parse(bytes(unit))
        self._parser.width = self._parser.height = 0  # the parser sets them only while they are unknown
        packets += self._parser.parse(None)  # otherwise the parser waits for the next unit to see where this one ends
        self.size = self._parser.width, self._parser.height
        return any(packet.is_keyframe for packet in packets)


def _reason(error: Exception) -> str:
    """Find the line of an error that tells the reason: the one with the error's type, or else the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((line.removeprefix(_KIND) for line in lines if line.startswith(_KIND)), lines[0])
