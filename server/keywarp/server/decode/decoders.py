"""Choose the decoder of a codec."""

from keywarp.protocol import Codec
from keywarp.server.decode.containers import ContainerDecoder
from keywarp.server.decode.frames import Decoder
from keywarp.server.decode.images import ImageDecoder
from keywarp.server.decode.packets import PacketDecoder
from keywarp.server.decode.video import VideoOptions


def open_decoder(codec: Codec, options: VideoOptions, *, chunks: bool = False) -> Decoder:
    """Open a decoder for one producer.

    Args:
        codec: The payloads' codec or container.
        options: How videos are decoded. Images have the same limit of pixels, and are turned likewise.
        chunks: Whether payloads are pieces of a byte stream instead of packets. Payloads of containers always are.
    """
    match codec:
        case "image":
            return ImageDecoder(options.max_pixels, upright=options.upright)
        case "mpegts" | "mp4" | "webm":
            return ContainerDecoder(codec, options)
        case _:
            return PacketDecoder(codec, options, chunks=chunks)
