"""Images of the kinds that people report as read wrongly by such software.

- Orientation: https://github.com/ultralytics/yolov5/issues/405, https://github.com/open-edge-platform/datumaro/issues/1756,
  https://github.com/facebookresearch/detectron2/pull/262
- 16 bits clipped to white: https://github.com/python-pillow/Pillow/issues/2574,
  https://github.com/python-pillow/Pillow/issues/1108
"""

import io
from contextlib import suppress

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from keywarp.images import (
    FILE_FORMATS,
    DamagedImageError,
    ImageError,
    NotAnImageError,
    TooManyPixelsError,
    UnsupportedImageError,
    decode_animation,
    decode_image,
    is_animated,
)
from tests.server.media import jpeg, plain, saved

LIMIT = 4096 * 4096
COLOR = (200, 100, 50)
PICTURE = Image.fromarray(plain(COLOR))
TRANSPARENT = PICTURE.convert("RGBA")

IMAGES = {
    "jpeg": saved(PICTURE, "JPEG", quality=95),
    "png": saved(PICTURE, "PNG"),
    "png with alpha": saved(TRANSPARENT, "PNG"),
    "lossy webp": saved(PICTURE, "WEBP"),
    "lossless webp": saved(PICTURE, "WEBP", lossless=True),
    "webp with alpha": saved(TRANSPARENT, "WEBP", exact=True),
}
DEEP = np.full((64, 128), 250 * 256 + 7, np.uint16)


def read(data: bytes, *, upright: bool = True) -> NDArray[np.uint8]:
    return decode_image(data, LIMIT, formats=FILE_FORMATS, upright=upright)


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("name", IMAGES)
def test_images_become_contiguous_rgb(name: str) -> None:
    pixels = decode_image(memoryview(IMAGES[name]), LIMIT)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (64, 128, 3)
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - COLOR).max() <= 6


@pytest.mark.parametrize(
    "data",
    [
        saved(PICTURE.convert("CMYK"), "JPEG", quality=95),
        saved(PICTURE.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        saved(PICTURE.convert("CMYK"), "TIFF"),
        saved(PICTURE, "TIFF", compression="tiff_lzw"),
        saved(PICTURE, "BMP"),
        saved(PICTURE, "PPM"),
    ],
    ids=["cmyk jpeg", "palette png", "cmyk tiff", "lzw tiff", "bmp", "ppm"],
)
def test_other_kinds_have_their_colours(data: bytes) -> None:
    pixels = read(data)
    assert pixels.shape == (64, 128, 3)
    assert np.abs(pixels.astype(int) - COLOR).max() <= 6


def test_a_palette_with_transparency_has_its_colours() -> None:
    image = PICTURE.convert("P", palette=Image.Palette.ADAPTIVE)
    data = saved(image, "PNG", transparency=bytes([0] * 16))
    assert np.abs(read(data).astype(int) - COLOR).max() <= 6


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_grey_images_have_three_equal_channels(form: str) -> None:
    pixels = read(saved(Image.fromarray(plain((90, 90, 90))[..., 0]), form))
    assert np.abs(pixels.astype(int) - 90).max() <= 2


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(form: str) -> None:
    assert (read(saved(Image.fromarray(DEEP), form)) == 250).all()


def test_colours_of_16_bits_are_scaled() -> None:
    raw = np.full((64, 128, 3), 0x80FF, ">u2").tobytes()
    assert (read(b"P6 128 64 65535\n" + raw) == 128).all()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused_with_the_reason(kind: type[np.float32]) -> None:
    with pytest.raises(UnsupportedImageError, match="8 or 16 bits"):
        read(saved(Image.fromarray(np.ones((4, 4), kind)), "TIFF"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_unless_told_otherwise(form: str, orientation: int) -> None:
    image = Image.fromarray(np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)).resize((24 * 8, 16 * 8), 0)
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0}
    data = saved(image, form, exif=tagged(orientation), **options)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    pixels = read(data)
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - expected).max() <= (4 if form == "JPEG" else 0)
    assert np.abs(read(data, upright=False).astype(int) - np.asarray(image)).max() <= (6 if form == "JPEG" else 0)


def test_exif_after_other_segments_and_in_big_endian_is_found() -> None:
    # Cameras and editors put JFIF, ICC profiles and comments before it, or store it as Motorola did.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    data = jpeg()
    head = data[:2] + b"\xff\xe2\0\x04ab" + b"\xff\xff\xfe\0\x03c"  # the second has a byte of padding
    assert read(head + segment + data[2:]).shape == (128, 64, 3)


@pytest.mark.parametrize("exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"rubbish" * 9])
def test_damaged_exif_means_no_turn(exif: bytes) -> None:
    content = b"Exif\0\0" + exif
    segment = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    assert read(jpeg()[:2] + segment + jpeg()[2:]).shape == (64, 128, 3)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_a_truncated_image_is_refused(name: str, share: float) -> None:
    data = IMAGES[name]
    with pytest.raises(DamagedImageError):
        decode_image(data[: max(16, int(len(data) * share))], LIMIT)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no bytes at all"),
        (b"a text file", "11 bytes"),
        (b"GIF89a" + bytes(100), "but GIF"),
        (b"RIFF1234WAVE" + bytes(100), "112 bytes"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "but HEIC"),
        (b"\0\0\0\x18ftypisom" + bytes(100), "but a video"),
        (b"\0\5\x16\7" + bytes(100), "macOS"),
        (saved(PICTURE, "TIFF"), "not a JPEG, PNG or WebP image, but TIFF"),
    ],
)
def test_other_content_is_refused_with_its_name(data: bytes, reason: str) -> None:
    with pytest.raises(NotAnImageError, match=reason):
        decode_image(data, LIMIT)


def test_the_size_is_checked_before_anything_is_decoded() -> None:
    # Headers only: if more than these were looked at, the error would be another.
    png = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (20000).to_bytes(4, "big") * 2
    vp8x = b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (16382).to_bytes(3, "little") * 2 + bytes(2)
    bmp = saved(Image.new("1", (8, 8)), "BMP")
    bmp = bmp[:18] + (20000).to_bytes(4, "little") * 2 + bmp[26:]
    for header in (png, vp8x, bmp, b"P6 20000 20000 255\n"):
        with pytest.raises(TooManyPixelsError, match=r"20000x20000|16383x16383"):
            read(header)
    huge_jpeg = bytearray(jpeg())
    start = huge_jpeg.index(b"\xff\xc0") + 5  # the frame header's height and width
    huge_jpeg[start : start + 4] = (20000).to_bytes(2, "big") * 2
    with pytest.raises(TooManyPixelsError, match="20000x20000"):
        read(bytes(huge_jpeg))


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_with_a_flipped_byte_is_decoded_or_refused(name: str) -> None:
    for position in range(0, len(IMAGES[name]), 3):
        data = bytearray(IMAGES[name])
        data[position] ^= 0x5A
        with suppress(ImageError):
            assert decode_image(bytes(data), 10**6).ndim == 3


def animation(form: str, **options: object) -> bytes:
    pictures = [Image.fromarray(plain((40 * i, 0, 0))) for i in range(1, 5)]
    return saved(pictures[0], form, save_all=True, append_images=pictures[1:], duration=[100, 50, 200, 100], **options)


@pytest.mark.parametrize(("form", "options"), [("WEBP", {"lossless": True}), ("PNG", {})])
def test_an_animation_gives_its_pictures_with_their_times(form: str, options: dict[str, object]) -> None:
    data = animation(form, **options)
    pictures = list(decode_animation(data))
    assert [picture.timestamp for picture in pictures] == pytest.approx([0, 0.1, 0.15, 0.35])
    assert [int(picture.pixels[0, 0, 0]) for picture in pictures] == [40, 80, 120, 160]
    assert (decode_image(data, LIMIT) == pictures[0].pixels).all()  # as a frame, it is its first picture
    assert is_animated(data)
    assert not is_animated(IMAGES["png"])
    assert not is_animated(IMAGES["webp with alpha"])


def test_the_pictures_of_an_animation_are_turned_upright() -> None:
    data = animation("WEBP", exif=tagged(6))
    assert {picture.pixels.shape for picture in decode_animation(data)} == {(128, 64, 3)}
    assert {picture.pixels.shape for picture in decode_animation(data, upright=False)} == {(64, 128, 3)}


def test_a_truncated_animation_is_damaged_after_its_pictures() -> None:
    data = animation("PNG")
    pictures = decode_animation(data[: data.rindex(b"fdAT") + 8])
    assert [int(next(pictures).pixels[0, 0, 0]) for _ in range(3)] == [40, 80, 120]
    with pytest.raises(DamagedImageError):
        next(pictures)
