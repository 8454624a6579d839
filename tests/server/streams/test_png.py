"""The PNGs of label maps and dense maps, read by other libraries than the one that writes them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from keywarp.images import DamagedImageError, decode_image
from keywarp.server.streams.png import encode_grey

SHAPES = [(1, 1), (1, 7), (5, 1), (272, 640), (33, 1000)]
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", SHAPES)
def test_label_maps_are_read_as_they_were(shape: tuple[int, int]) -> None:
    labels = RANDOM.integers(0, 256, shape).astype(np.uint8)
    image = Image.open(io.BytesIO(encode_grey(labels)))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), labels)


@pytest.mark.parametrize("shape", SHAPES)
def test_16_bits_are_read_as_they_were(shape: tuple[int, int]) -> None:
    steps = RANDOM.integers(0, 65536, shape).astype(np.uint16)
    found = cv2.imdecode(np.frombuffer(encode_grey(steps), np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, steps)


def test_a_part_of_a_map_is_read_as_it_was() -> None:
    part = RANDOM.integers(0, 256, (20, 30)).astype(np.uint8)[3:9:2, 5:]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_grey(part)))), part)


def test_checksums_are_right() -> None:
    png = bytearray(encode_grey(np.full((4, 4), 7, np.uint8)))
    np.testing.assert_array_equal(decode_image(bytes(png)), 7)  # which checks them
    png[-20] ^= 1
    with pytest.raises(DamagedImageError):
        decode_image(bytes(png))


def test_flat_areas_take_hardly_any_bytes() -> None:
    labels = np.zeros((272, 640), np.uint8)
    labels[100:200, 200:400] = 3
    assert len(encode_grey(labels)) < 1000
