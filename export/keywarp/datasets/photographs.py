"""Photographs of animals, monuments and musicians, from which data are generated.

They come from GCompris, a collection of games for children. Debian's package of its data (44 MB) is fetched once. Each
photograph has its own licence: public domain, GPL, GFDL or a Creative Commons licence, as listed in the package's
copyright file. None of them is part of Keywarp.
"""

import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from keywarp.datasets.errors import DataError
from keywarp.datasets.images import scale_image
from keywarp.datasets.packages import PackageFile, fetch
from keywarp.datasets.types import Image

RESOURCES = PackageFile(
    "debian",
    "gcompris-qt-data",
    "usr/share/gcompris-qt/rcc/",
    "d60135824ebf39c74e2a471c9a81c1dddc36d409694b1fe4ab767cd0b50c4b7b",
)
FILES = (  # the package's files in which all large images are photographs
    "erase.rcc",
    "explore_farm_animals.rcc",
    "explore_monuments.rcc",
    "explore_world_animals.rcc",
    "explore_world_music.rcc",
)
SHORT_SIDE = 480  # pixels
_QUALITY = 95  # JPEG quality in the cache
_EVALUATION_STEP = 4  # every fourth photograph is for evaluation


def photographs(cache: Path) -> list[Image]:
    """Return about 110 photographs, always in the same order.

    Args:
        cache: The folder that keeps the package, and a small file of the decoded photographs.

    Returns:
        The photographs, each (h, w, 3) RGB with a shorter side of 480 pixels.

    Raises:
        PackageError: If the package can't be fetched.
        DataError: If the cached photographs can't be read.
    """
    path = cache / f"photographs-{RESOURCES.sha256[:16]}.npz"
    if not path.exists():
        _write(path, _decode(fetch(RESOURCES, cache)))
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return [_picture(kept[name]) for name in sorted(kept.files)]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read; delete it to have it created again") from error


def split_photographs(images: Sequence[Image]) -> tuple[list[Image], list[Image]]:
    """Split photographs into three quarters for training and one quarter for evaluation."""
    training = [image for number, image in enumerate(images) if number % _EVALUATION_STEP]
    return training, list(images[::_EVALUATION_STEP])


def _decode(folder: Path) -> list[Image]:
    """Decode the photographs in the order of the files, leave out small images, and shrink the rest."""
    members = (member for name in FILES for member in _members((folder / name).read_bytes()))
    decoded = (_picture(np.frombuffer(member, np.uint8)) for member in members if member[8:12] == b"WEBP")
    return [
        scale_image(image, SHORT_SIDE / min(image.shape[:2])) for image in decoded if min(image.shape[:2]) >= SHORT_SIDE
    ]


def _members(resource: bytes) -> Iterator[bytes]:
    """Yield the files in a Qt binary resource, which stores them one after the other, each preceded by its length."""
    _, _, tree, data, names = struct.unpack(">4s4I", resource[:20])
    end = min(offset for offset in (tree, names, len(resource)) if offset > data)
    while data < end:
        (length,) = struct.unpack(">I", resource[data : data + 4])
        yield resource[data + 4 : data + 4 + length]
        data += 4 + length


def _write(path: Path, images: list[Image]) -> None:
    encoded = {}
    for number, image in enumerate(images):
        _, encoded[f"{number:03d}"] = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
    partial = path.with_name(path.stem + ".partial.npz")
    np.savez(partial, allow_pickle=False, **encoded)
    partial.replace(path)  # atomic


def _picture(encoded: npt.NDArray[np.uint8]) -> Image:
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DataError(f"a photograph of {len(encoded)} bytes can't be decoded; delete the cache")
    return np.asarray(image, np.uint8)
