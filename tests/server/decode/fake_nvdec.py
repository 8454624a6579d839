"""A fake of PyNvVideoCodec and NVIDIA's driver, with the calls that Keywarp makes.

It decodes with FFmpeg, and behaves like PyNvVideoCodec 2.2 where that is surprising. The next call overwrites the
memory of the frames before. The width of frames is rounded up to an even number. Units that can't be decoded are
ignored without an error. A decoder keeps the frame size that it started with. Some errors come only with a video's
first unit.
"""

import ctypes
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from tests.engines.tensorrt.fake_driver import FakeDriver

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

SOFTWARE: Final = {"H264": "h264", "HEVC": "hevc", "AV1": "libdav1d"}  # FFmpeg's decoders


class Codec(Enum):
    H264 = 4
    HEVC = 8
    AV1 = 11


class Color(Enum):
    NATIVE = 0
    RGB = 1


class Latency(Enum):
    NATIVE = 0
    LOW = 1


class Flag(IntEnum):
    ENDOFPICTURE = 8


class PyNvVCException(Exception):  # noqa: N818 - the name in PyNvVideoCodec
    pass


class PyNvVCExceptionUnsupported(Exception):  # noqa: N818
    pass


@dataclass
class PacketData:
    bsl_data: int = 0
    bsl: int = 0
    pts: int = 0
    decode_flag: int = 0


class DecodedFrame:
    def __init__(self, memory: NDArray[np.uint8], pts: int, address: int) -> None:
        self._memory = memory
        self._pts = pts
        self._address = address

    @property
    def strides(self) -> list[int]:
        return list(self._memory.strides)

    @property
    def shape(self) -> list[int]:
        return list(self._memory.shape)

    def cuda(self) -> None:
        raise PyNvVCException("a frame on the host has no view on the device")

    def GetPtrToPlane(self, plane: int) -> int:  # noqa: N802
        assert plane == 0
        return self._address

    def getPTS(self) -> int:  # noqa: N802
        return self._pts


@dataclass
class FakeNvDecoder:
    """A decoder as `CreateDecoder` returns it."""

    module: "FakePyNvVideoCodec"
    codec: Codec
    latency: Latency
    driver: FakeDriver | None = None  # of the device whose memory frames are in; None for the host's
    stream: int = 0
    calls: int = 0
    size: tuple[int, int] = (0, 0)
    memory: list[NDArray[np.uint8]] = field(default_factory=list)

    def __post_init__(self) -> None:
        context = cast("VideoCodecContext", av.CodecContext.create(SOFTWARE[self.codec.name], "r"))
        context.thread_count = 1
        self._context = context

    def Decode(self, packet: PacketData) -> list[DecodedFrame]:  # noqa: N802
        for memory in self.memory:
            memory[:] = 0xAA
        self.calls += 1
        if self.module.failing and (error := self.module.failing.pop(0)):
            raise error
        if packet.bsl:
            whole = Flag.ENDOFPICTURE if self.codec is not Codec.AV1 else 0
            assert packet.decode_flag == whole
        unit = av.Packet(ctypes.string_at(packet.bsl_data, packet.bsl)) if packet.bsl else None
        if unit:
            unit.pts = packet.pts
        try:
            frames = self._context.decode(unit)
        except FFmpegError:
            return []
        return [self._surface(frame) for frame in frames]

    def _surface(self, frame: av.VideoFrame) -> DecodedFrame:
        size = (frame.width, frame.height)
        self.size = self.size if any(self.size) else size
        if size[0] > self.size[0] or size[1] > self.size[1]:
            raise PyNvVCException("Reconfigure Not supported when width/height > maxwidth/maxheight")
        width, height = self.size
        pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
        shape = height, width + width % 2, 3
        memory = np.zeros(shape, np.uint8)
        address = memory.ctypes.data
        if self.driver:
            address = self.driver.allocate(memory.size)
            memory = self.driver.memory(address, memory.size).reshape(shape)
            self.driver.streams[self.stream].append(lambda: memory.__setitem__((slice(None), slice(width)), pixels))
        else:
            memory[:, :width] = pixels
        self.memory.append(memory)
        assert frame.pts is not None
        return DecodedFrame(memory, frame.pts, address)


class FakePyNvVideoCodec(ModuleType):
    """The module `PyNvVideoCodec`."""

    cudaVideoCodec = Codec  # noqa: N815
    OutputColorType = Color
    DisplayDecodeLatencyType = Latency
    VideoPacketFlag = Flag
    PacketData = PacketData
    PyNvVCException = PyNvVCException
    PyNvVCExceptionUnsupported = PyNvVCExceptionUnsupported

    def __init__(self) -> None:
        super().__init__("PyNvVideoCodec")
        self.supported = {*Codec}
        self.failing: list[Exception | None] = []  # errors for the next calls of all decoders
        self.decoders: list[FakeNvDecoder] = []
        self.driver: FakeDriver | None = None  # of the device that frames stay on

    def GetDecoderCaps(self, *, gpuid: int, codec: Codec) -> dict[str, int]:  # noqa: N802
        assert gpuid == 0
        return {"codec_id": codec.value, "supported": int(codec in self.supported), "width_max": 8192}

    def CreateDecoder(  # noqa: N802
        self,
        *,
        gpuid: int,
        codec: Codec,
        usedevicememory: bool,
        outputColorType: Color,  # noqa: N803
        latency: Latency,
        cudacontext: int = 0,
        cudastream: int = 0,
    ) -> Any:
        assert (gpuid, outputColorType) == (0, Color.RGB)
        driver = self.driver if usedevicememory else None
        assert cudacontext == (driver.context if driver else 0)
        decoder = FakeNvDecoder(self, codec, latency, driver, cudastream)
        self.decoders.append(decoder)
        return decoder
