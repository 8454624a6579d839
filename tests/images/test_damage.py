"""Thousands of damaged images through the real reader: no other exception, and never complete when data are missing.

What readers do with damaged files:
- a truncated JPEG is taken: https://github.com/ultralytics/yolov5/issues/916,
  https://github.com/libvips/libvips/issues/1946
- a PNG's checksums are ignored: https://github.com/python-pillow/Pillow/issues/5800, or lead to refusal where they
  don't matter: https://github.com/python-pillow/Pillow/issues/7993
"""

import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from keywarp.images import FILE_FORMATS, ImageError, decode_animation, decode_image, is_animated
from tests.server.media import saved

ROUNDS = 400  # for each file and kind of damage
GRID = np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)
PICTURE = Image.fromarray(GRID).resize((64, 48), Image.Resampling.BICUBIC)
EXIF = Image.Exif()
EXIF[0x0112] = 6
ANIMATION = {"save_all": True, "append_images": [PICTURE.rotate(90), PICTURE.rotate(180)], "duration": 40}
FILES = {
    "jpeg": saved(PICTURE, "JPEG", quality=90, exif=EXIF),
    "progressive jpeg": saved(PICTURE, "JPEG", quality=90, progressive=True),
    "png": saved(PICTURE, "PNG", exif=EXIF),
    "interlaced palette png": saved(PICTURE.quantize(64), "PNG"),
    "webp": saved(PICTURE, "WEBP", exif=EXIF),
    "lossless webp": saved(PICTURE, "WEBP", lossless=True),
    "animated webp": saved(PICTURE, "WEBP", **ANIMATION),
    "animated png": saved(PICTURE, "PNG", **ANIMATION),
    "tiff": saved(PICTURE, "TIFF", compression="tiff_lzw"),
    "bmp": saved(PICTURE, "BMP"),
}


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def overwrite(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 4, 40))):
        changed[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(changed)


def reorder(data: bytes, chance: random.Random) -> bytes:
    a, b, c = sorted(chance.randrange(len(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def read(data: bytes) -> list[bytes] | None:
    """Return all pictures, or None if the reader refuses some."""
    try:
        pictures = [decode_image(data, 2**16, formats=FILE_FORMATS)]
        if is_animated(data):
            pictures += [picture.pixels for picture in decode_animation(data, 2**16)]
    except ImageError:
        return None
    assert all(p.ndim == 3 and p.dtype == np.uint8 and p.size <= 3 * 2**16 for p in pictures)
    return [picture.tobytes() for picture in pictures]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about metadata that are damaged
@pytest.mark.parametrize("damage", [cut, overwrite, reorder])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_image_is_refused_or_read(name: str, damage: Callable[[bytes, random.Random], bytes]) -> None:
    data, chance = FILES[name], random.Random(f"{name} {damage.__name__}")
    whole = read(data)
    assert whole is not None
    refused = 0
    for _ in range(ROUNDS):
        damaged = damage(data, chance)
        found = read(damaged)
        refused += found is None
        # What is missing is always noticed, and PNG's checksums show every change of its pixels.
        if found is not None and (damage is cut or name.endswith("png")):
            assert found == whole, damaged.hex()
    if damage is cut:
        assert refused > 0.9 * ROUNDS


def test_a_png_whose_colour_profile_is_damaged_is_read() -> None:
    data = FILES["png"]
    profile = b"iCCPbroken"
    chunk = (len(profile) - 4).to_bytes(4, "big") + profile + b"\0\0\0\0"
    start = data.index(b"IDAT") - 4
    assert (decode_image(data[:start] + chunk + data[start:]) == decode_image(data)).all()
