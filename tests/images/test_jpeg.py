"""JPEG files that cost more than their size."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from keywarp.images import UnsupportedImageError, decode_image
from keywarp.images.jpeg import scans

NOISE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)


def saved(**options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "JPEG", **options)
    return file.getvalue()


def with_scans(count: int) -> bytes:
    """Make a progressive JPEG whose last scan comes again and again."""
    data = saved(progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


def test_a_progressive_image_is_read() -> None:
    assert scans(saved(progressive=True)) == 10
    assert decode_image(saved(progressive=True)).shape == NOISE.shape


def test_a_progressive_image_with_too_many_scans_is_refused_before_it_is_decoded() -> None:
    assert scans(with_scans(3000)) == 3009
    with pytest.raises(UnsupportedImageError, match="3009 scans"):
        decode_image(with_scans(3000))


def test_what_looks_like_scans_in_a_thumbnail_does_not_count() -> None:
    """A baseline image has one scan, whatever its other segments hold."""
    data = bytes(simplejpeg.encode_jpeg(NOISE, 95))
    comment = b"\xff\xfe" + (2 + 200).to_bytes(2) + b"\xff\xda" * 100
    assert scans(data[:2] + comment + data[2:]) == 1
    assert decode_image(data[:2] + comment + data[2:]).shape == NOISE.shape


def test_scans_behind_damage_are_counted() -> None:
    data = with_scans(100)
    assert scans(data[:2] + b"\0\0" + data[2:]) == 109
