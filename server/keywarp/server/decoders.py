"""Which decoder reads what a client says that it sends."""

from typing import assert_never

from keywarp.protocol import Hello
from keywarp.server.pictures import Decoder, ImageDecoder
from keywarp.server.video import H264Decoder, MpegTsDecoder


def open_decoder(hello: Hello, max_pixels: int) -> Decoder:
    """A fresh decoder for one connection."""
    match hello.codec:
        case "image":
            return ImageDecoder(max_pixels)
        case "h264":
            return H264Decoder(max_pixels, chunks=hello.framing == "chunks")
        case "mpegts":
            return MpegTsDecoder(max_pixels)
        case _:
            assert_never(hello.codec)
