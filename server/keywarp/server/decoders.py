"""Which decoder reads what a client says that it sends."""

from typing import get_args

from keywarp.protocol import Codec, Container
from keywarp.server.containers import ContainerDecoder
from keywarp.server.packets import PacketDecoder
from keywarp.server.pictures import Decoder, ImageDecoder


def open_decoder(codec: Codec, max_pixels: int, *, chunks: bool = False) -> Decoder:
    """A fresh decoder for one connection.

    Args:
        codec: What the payloads are.
        max_pixels: Of a frame.
        chunks: Payloads are pieces of a byte stream, not packets; containers always are.
    """
    if codec == "image":
        return ImageDecoder(max_pixels)
    if codec in get_args(Container):
        return ContainerDecoder(codec, max_pixels)
    return PacketDecoder(codec, max_pixels, chunks=chunks)
