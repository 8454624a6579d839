"""Choose the decoder of a codec."""

from keywarp.protocol import Codec
from keywarp.server.decode.containers import ContainerDecoder
from keywarp.server.decode.frames import Decoder
from keywarp.server.decode.images import ImageDecoder
from keywarp.server.decode.nvdec import Nvdec
from keywarp.server.decode.packets import PacketDecoder


def open_decoder(
    codec: Codec,
    max_pixels: int,
    nvdec: Nvdec | None = None,
    *,
    chunks: bool = False,
    vectors: bool = False,
    upright: bool = True,
) -> Decoder:
    """Open a decoder for one producer.

    Args:
        codec: The payloads' codec or container.
        max_pixels: The most pixels of a frame.
        nvdec: The GPU's decoding hardware, used for the codecs that it has, or None for the processor.
        chunks: Whether payloads are pieces of a byte stream instead of packets. Payloads of containers always are.
        vectors: Whether frames come with their motion vectors, if the codec's decoder exports them.
        upright: Whether frames are turned as EXIF says, or left as their pixels are stored.
    """
    match codec:
        case "image":
            return ImageDecoder(max_pixels, upright=upright)
        case "mpegts" | "mp4" | "webm":
            return ContainerDecoder(codec, max_pixels, nvdec, vectors=vectors)
        case _:
            return PacketDecoder(codec, max_pixels, nvdec, chunks=chunks, vectors=vectors)
