from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from keywarp.server.decode.images import decode_image
from keywarp.server.errors import DamagedImageError, NotAnImageError, TooManyPixelsError
from tests.server.media import jpeg, plain, saved

LIMIT = 4096 * 4096
PICTURE = Image.fromarray(plain((200, 100, 50)))
TRANSPARENT = PICTURE.convert("RGBA")

IMAGES = {
    "jpeg": saved(PICTURE, "JPEG", quality=95),
    "png": saved(PICTURE, "PNG"),
    "png with alpha": saved(TRANSPARENT, "PNG"),
    "lossy webp": saved(PICTURE, "WEBP"),
    "lossless webp": saved(PICTURE, "WEBP", lossless=True),
    "webp with alpha": saved(TRANSPARENT, "WEBP", exact=True),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_become_contiguous_rgb(name: str) -> None:
    pixels = decode_image(memoryview(IMAGES[name]), LIMIT)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (64, 128, 3)
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 6


def test_grey_cmyk_palette_and_16_bit_images_become_rgb() -> None:
    grey = Image.fromarray(plain()[..., 0])
    deep = Image.fromarray(np.full((64, 128), 250 * 256 + 7, np.uint16))
    assert decode_image(saved(grey, "JPEG"), LIMIT).shape == (64, 128, 3)
    assert decode_image(saved(PICTURE.convert("CMYK"), "JPEG"), LIMIT).shape == (64, 128, 3)
    assert decode_image(saved(PICTURE.convert("P"), "PNG"), LIMIT).shape == (64, 128, 3)
    assert (decode_image(saved(deep, "PNG"), LIMIT) == 250).all()


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_image(saved(PICTURE, "JPEG", exif=exif), LIMIT).shape == (64, 128, 3)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_a_truncated_image_is_refused(name: str, share: float) -> None:
    data = IMAGES[name]
    with pytest.raises(DamagedImageError):
        decode_image(data[: max(16, int(len(data) * share))], LIMIT)


@pytest.mark.parametrize("data", [b"", b"a text file", b"GIF89a" + bytes(100), b"RIFF1234WAVE" + bytes(100)])
def test_other_content_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnImageError):
        decode_image(data, LIMIT)


def test_the_size_is_checked_before_anything_is_decoded() -> None:
    # Headers only: if more than these were looked at, the error would be another.
    png = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (20000).to_bytes(4, "big") * 2
    vp8x = b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (16382).to_bytes(3, "little") * 2 + bytes(2)
    for header in (png, vp8x):
        with pytest.raises(TooManyPixelsError, match=r"20000x20000|16383x16383"):
            decode_image(header, LIMIT)
    huge_jpeg = bytearray(jpeg())
    start = huge_jpeg.index(b"\xff\xc0") + 5  # the frame header's height and width
    huge_jpeg[start : start + 4] = (20000).to_bytes(2, "big") * 2
    with pytest.raises(TooManyPixelsError, match="20000x20000"):
        decode_image(bytes(huge_jpeg), LIMIT)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_with_a_flipped_byte_is_decoded_or_refused(name: str) -> None:
    for position in range(0, len(IMAGES[name]), 3):
        data = bytearray(IMAGES[name])
        data[position] ^= 0x5A
        with suppress(DamagedImageError, NotAnImageError, TooManyPixelsError):
            assert decode_image(bytes(data), 10**6).ndim == 3
