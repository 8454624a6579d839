"""Flying Chairs as it is distributed, and the .flo format: images of chairs in motion, with their flow.

    data/00001_img1.ppm
    data/00001_img2.ppm
    data/00001_flow.flo         (img1 -> img2)
    FlyingChairs_train_val.txt  (optional: a line for each pair, 1 for training and 2 for validation)

A .flo file (Middlebury's) is little-endian: the float32 202021.25, width and height as int32, and then for each row (u,
v) of each pixel as float32.
"""

import struct
from pathlib import Path
from typing import Literal

import numpy as np

from keywarp.datasets.errors import DataError
from keywarp.datasets.images import read_bytes, read_image
from keywarp.datasets.motion import Flow
from keywarp.datasets.samples import FlowPair

_HEADER = struct.Struct("<fii")
_MAGIC = 202021.25
_LARGEST = 99_999  # pixels per side, as in Middlebury's own reader
_LIST = "FlyingChairs_train_val.txt"
_MARKS = {"train": "1", "val": "2"}


def read_flo(path: Path) -> Flow:
    """Read a .flo file as (H, W, 2), (dx, dy) in pixels. Unknown flow, where a set has any, is above 1e9.

    Raises:
        DataError: If the file is missing, isn't a .flo file, or hasn't the length that its header gives.
    """
    content = read_bytes(path)
    if len(content) < _HEADER.size:
        raise DataError(f"{path} has {len(content)} bytes, less than a .flo file's header; download it again")
    magic, width, height = _HEADER.unpack_from(content)
    if magic != _MAGIC or not (0 < width <= _LARGEST and 0 < height <= _LARGEST):
        raise DataError(f"{path} is not a .flo file: it starts with {magic:g}, {width}, {height}; download it again")
    expected = _HEADER.size + 8 * width * height
    if len(content) != expected:
        raise DataError(f"{path} has {len(content)} bytes, but {width}x{height} flow has {expected}; download it again")
    values = np.frombuffer(content, np.dtype("<f4"), offset=_HEADER.size)
    return values.reshape(height, width, 2).astype(np.float32)


def write_flo(path: Path, flow: Flow) -> None:
    """Write a .flo file.

    Args:
        path: The file's path.
        flow: The flow, (H, W, 2), (dx, dy) in pixels.

    Raises:
        ValueError: If the flow has another shape.
    """
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"flow must have shape (H, W, 2), not {flow.shape}")
    height, width = flow.shape[:2]
    path.write_bytes(_HEADER.pack(_MAGIC, width, height) + flow.astype("<f4").tobytes())


class FlyingChairs:
    """A split of Flying Chairs at its own size (512 x 384), since resizing would blur discontinuities of the flow.

    The first image is the current frame and the second the key frame, so that the set's flow is the backward flow that
    Keywarp warps along.
    """

    def __init__(self, root: Path, split: Literal["train", "val"] = "train") -> None:
        """Find the files.

        Args:
            root: The folder that holds `data`.
            split: The split according to the list. Without a list, `train` is everything and there is no `val`.

        Raises:
            DataError: If files are missing or the list is malformed.
        """
        self._folder = root / "data"
        suffix = "_flow.flo"
        names = sorted(path.name.removesuffix(suffix) for path in self._folder.glob(f"*{suffix}"))
        if not names:
            raise DataError(
                f"there is no *{suffix} in {self._folder}; unpack FlyingChairs.zip and give the folder above `data`"
            )
        list_ = root / _LIST
        if list_.is_file():
            marks = list_.read_text().split()
            if not set(marks) <= set(_MARKS.values()):
                raise DataError(f"{list_} has lines other than 1 and 2; download it again")
            names = [name for name in names if _mark(name, marks, list_) == _MARKS[split]]
        elif split != "train":
            raise DataError(f"{list_} is missing, which says which pairs are for `{split}`; put it there")
        if not names:
            raise DataError(f"{list_} has no pair for `{split}`")
        self._names = names

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._names)

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        """Draw a pair.

        Raises:
            DataError: If a file is missing or broken, or the images and the flow differ in size.
        """
        name = self._names[int(random.integers(len(self._names)))]
        current, key = (read_image(self._folder / f"{name}_img{number}.ppm") for number in (1, 2))
        flow = read_flo(self._folder / f"{name}_flow.flo")
        if not current.shape[:2] == key.shape[:2] == flow.shape[:2]:
            raise DataError(f"the images and the flow of {self._folder / name} differ in size; download them again")
        return FlowPair(current, key, flow)


def _mark(name: str, marks: list[str], list_: Path) -> str:
    if not name.isdecimal() or not 0 < int(name) <= len(marks):
        raise DataError(f"{list_} has {len(marks)} lines and none for pair {name}; download it again")
    return marks[int(name) - 1]
