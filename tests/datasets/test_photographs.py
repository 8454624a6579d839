"""Photographs are taken from Debian's package, of which the first run downloads 44 MB."""

import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from keywarp.datasets.errors import DataError
from keywarp.datasets.photographs import FILES, RESOURCES, SHORT_SIDE, photographs, split_photographs
from tests.datasets.synthetic import textured

CACHE = Path(__file__).parents[2] / ".cache" / "keywarp" / "packages"


def resource(members: list[bytes]) -> bytes:
    """Return a resource as Qt's compiler writes it: a header, files preceded by their lengths, names and tree."""
    data = b"".join(struct.pack(">I", len(member)) + member for member in members)
    end = 20 + len(data)
    return struct.pack(">4s4I", b"qres", 1, end + 4, 20, end) + data + b"nametree"


def webp(height: int, width: int) -> bytes:
    return cv2.imencode(".webp", textured(height, width))[1].tobytes()


@pytest.fixture(scope="module")
def content() -> bytes:
    return resource([b"<svg/>", webp(500, 640), webp(240, 320), webp(600, 480)])


@pytest.fixture
def cache(tmp_path: Path, content: bytes) -> Path:
    """Return a cache as it is after the package was fetched."""
    folder = tmp_path / RESOURCES.sha256[:16] / "rcc"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(content)
    return tmp_path


def test_large_images_are_taken_from_the_package_and_shrunk(cache: Path) -> None:
    images = photographs(cache)
    assert [image.shape for image in images] == [(480, 614, 3), (600, 480, 3)] * len(FILES)


def test_the_cache_replaces_the_package(cache: Path) -> None:
    first = photographs(cache)
    shutil.rmtree(cache / RESOURCES.sha256[:16])
    for before, after in zip(first, photographs(cache), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_error_of_a_damaged_cache_names_it(cache: Path) -> None:
    photographs(cache)
    (kept,) = cache.glob("photographs-*.npz")
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.raises(DataError, match=f"{kept.name} can't be read"):
        photographs(cache)


def test_training_and_evaluation_share_no_photograph() -> None:
    images = [np.full((1, 1, 3), number, np.uint8) for number in range(10)]
    training, evaluation = ([int(image[0, 0, 0]) for image in part] for part in split_photographs(images))
    assert (training, evaluation) == ([1, 2, 3, 5, 6, 7, 9], [0, 4, 8])


def test_there_are_more_than_a_hundred_photographs_in_the_package() -> None:
    images = photographs(CACHE)
    assert len(images) == 112
    assert all(min(image.shape[:2]) == SHORT_SIDE for image in images)
    # no two photographs are the same
    small = [cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32) for image in images]
    nearest = [min(np.abs(a - b).mean() for j, b in enumerate(small) if j != i) for i, a in enumerate(small)]
    assert min(nearest) > 5
