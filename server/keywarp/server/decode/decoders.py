"""Which decoder reads what a client says that it sends."""

from typing import get_args

from keywarp.protocol import Codec, Container
from keywarp.server.decode.containers import ContainerDecoder
from keywarp.server.decode.frames import Decoder, ImageDecoder
from keywarp.server.decode.nvdec import Nvdec
from keywarp.server.decode.packets import PacketDecoder


def open_decoder(codec: Codec, max_pixels: int, nvdec: Nvdec | None = None, *, chunks: bool = False) -> Decoder:
    """A fresh decoder for one connection.

    Args:
        codec: What the payloads are.
        max_pixels: Of a frame.
        nvdec: What decodes video where it can; None: the processor.
        chunks: Payloads are pieces of a byte stream, not packets; containers always are.
    """
    if codec == "image":
        return ImageDecoder(max_pixels)
    if codec in get_args(Container):
        return ContainerDecoder(codec, max_pixels, nvdec)
    return PacketDecoder(codec, max_pixels, nvdec, chunks=chunks)
