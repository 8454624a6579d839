"""Make small images and videos for tests."""

import io

import av
import numpy as np
import simplejpeg
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from keywarp.protocol import PacketCodec
from tests.priority import priority_kept

WIDTH, HEIGHT = 128, 64
RED, GREEN = (250, 20, 20), (20, 250, 20)

# Options of the encoder.
B_FRAMES = {"bf": "3", "b-adapt": "0"}
NO_DELAY = {"tune": "zerolatency"}
# By codec: encoder, container and options.
ENCODERS: dict[PacketCodec, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "h264", B_FRAMES),
    "hevc": ("libx265", "hevc", {"x265-params": "log-level=error"}),
    "vp8": ("libvpx", "webm", {"deadline": "realtime", "cpu-used": "8"}),
    "vp9": ("libvpx-vp9", "webm", {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "6"}),  # superframes
    "av1": ("libsvtav1", "webm", {"preset": "12"}),
}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


def plain(color: tuple[int, int, int] = RED, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    return np.full((height, width, 3), color, np.uint8)


def jpeg(color: tuple[int, int, int] = RED, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    return bytes(simplejpeg.encode_jpeg(plain(color, width, height), 95))


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def textured(seed: int) -> bytes:
    """Make a PNG with a texture that depends on the seed."""
    grid = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return saved(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), "PNG")


def moving(count: int) -> list[NDArray[np.uint8]]:
    """Make grey frames, each 4 steps lighter than the one before, so that each tells its number."""
    return [plain((16 + 4 * i,) * 3) for i in range(count)]


def encode(
    frames: list[NDArray[np.uint8]],
    form: str,
    options: dict[str, str],
    encoder: str = "libx264",
    muxing: dict[str, str] | None = None,
) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Encode at 25 fps.

    Returns:
        The container's bytes, and the packets in coding order, each with its number in presentation order.
    """
    file = io.BytesIO()
    packets: list[tuple[int, bytes]] = []
    with priority_kept(), av.open(file, "w", format=form, options=muxing or {}) as container:
        stream = container.add_stream(encoder, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for number, pixels in enumerate([*frames, None]):
            frame = None
            if pixels is not None:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = number
            for packet in stream.encode(frame):
                assert packet.pts is not None
                packets.append((packet.pts, bytes(packet)))
                container.mux(packet)
    return file.getvalue(), packets


def h264(count: int, options: dict[str, str]) -> list[tuple[int, bytes]]:
    """Encode access units in Annex-B format, in coding order, each with its frame's number in presentation order."""
    return encode(moving(count), "h264", options)[1]


def mpegts(count: int, options: dict[str, str]) -> bytes:
    return encode(moving(count), "mpegts", options)[0]


def packets(codec: PacketCodec, count: int) -> list[tuple[int, bytes]]:
    """Encode packets, in coding order, each with its frame's number in presentation order."""
    encoder, form, options = ENCODERS[codec]
    return encode(moving(count), form, options, encoder)[1]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]
