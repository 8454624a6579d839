"""Photographs of animals, monuments and musicians, to make pictures of.

They are those of GCompris, games for children, in Debian's package of its data (44 MB, fetched once). Each has its own
licence: public domain, GPL, GFDL or a Creative Commons one, as the package's copyright file says. None of them is a
part of Keywarp.
"""

import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.errors import DataError
from keywarp.datasets.packages import PackageFile, fetch
from keywarp.datasets.types import Image

RESOURCES = PackageFile(
    "debian",
    "gcompris-qt-data",
    "usr/share/gcompris-qt/rcc/",
    "d60135824ebf39c74e2a471c9a81c1dddc36d409694b1fe4ab767cd0b50c4b7b",
)
FILES = (  # those of its files that hold photographs, and nothing else in their size
    "erase.rcc",
    "explore_farm_animals.rcc",
    "explore_monuments.rcc",
    "explore_world_animals.rcc",
    "explore_world_music.rcc",
)
SHORT_SIDE = 480  # pixels
_QUALITY = 95  # of the JPEGs that are kept
_EVALUATION = 4  # every so many photographs one is for evaluation


def photographs(cache: Path) -> list[Image]:
    """Get about 110 photographs, always in the same order.

    Args:
        cache: Folder that keeps what was fetched, and the photographs in one small file.

    Returns:
        Each (h, w, 3) RGB, the shorter side of 480 pixels.

    Raises:
        PackageError: The package can't be had.
        DataError: What is kept can't be read.
    """
    path = cache / f"photographs-{RESOURCES.sha256[:16]}.npz"
    if not path.exists():
        _keep(path, _decode(fetch(RESOURCES, cache)))
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return [_picture(kept[name]) for name in sorted(kept.files)]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read: remove it, and it is made again") from error


def split_photographs(images: Sequence[Image]) -> tuple[list[Image], list[Image]]:
    """Split them into three quarters to train on and one to evaluate on, which have no photograph in common."""
    training = [image for number, image in enumerate(images) if number % _EVALUATION]
    return training, list(images[::_EVALUATION])


def _decode(folder: Path) -> list[Image]:
    """The photographs in the order of the files, those that are large enough, shrunk."""
    members = (member for name in FILES for member in _members((folder / name).read_bytes()))
    decoded = (_picture(np.frombuffer(member, np.uint8)) for member in members if member[8:12] == b"WEBP")
    return [_shrink(image) for image in decoded if min(image.shape[:2]) >= SHORT_SIDE]


def _members(resource: bytes) -> Iterator[bytes]:
    """The files in one of Qt's binary resources: their data lies one after the other, each after its length."""
    _, _, tree, data, names = struct.unpack(">4s4I", resource[:20])
    end = min(place for place in (tree, names, len(resource)) if place > data)
    while data < end:
        (length,) = struct.unpack(">I", resource[data : data + 4])
        yield resource[data + 4 : data + 4 + length]
        data += 4 + length


def _shrink(image: Image) -> Image:
    height, width = image.shape[:2]
    factor = SHORT_SIDE / min(height, width)
    size = (round(width * factor), round(height * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _keep(path: Path, images: list[Image]) -> None:
    encoded = {}
    for number, image in enumerate(images):
        _, encoded[f"{number:03d}"] = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
    partial = path.with_name(path.stem + ".partial.npz")
    np.savez(partial, allow_pickle=False, **encoded)
    partial.replace(path)  # all of it or nothing


def _picture(encoded: npt.NDArray[np.uint8]) -> Image:
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DataError(f"{len(encoded)} bytes that should be a photograph can't be decoded")
    return np.asarray(image, np.uint8)
