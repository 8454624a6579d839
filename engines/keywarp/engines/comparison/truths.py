"""The per-frame results of a comparison, which schedules are compared with."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.comparison.value_agreement import value_range
from keywarp.engines.masks import InstanceMasks
from keywarp.engines.result import DenseMap, Detections, LabelMap, Output

HEADER = struct.Struct("<IIII")  # clip, frame, height or number of boxes, bytes that follow
RANGE = struct.Struct("<ff")  # lowest and highest value of a dense map
LEVELS = 3600  # of a dense map's values in its range, far finer than the tolerance of their agreement
BEYOND = 360  # further levels on each side, for outliers


class Truths:
    """Results by clip and frame, compressed in memory, and in a file from which they can be read again."""

    def __init__(self, path: Path | None = None) -> None:
        """Start with the results in the file, if there is one.

        Args:
            path: The file to add results to, or None to keep them in memory only. `flush` creates it.

        Raises:
            OSError: If the file can't be read or written.
        """
        self._kept: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._path = path
        self._unwritten = bytearray()
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        at = 0
        while at + HEADER.size <= len(content):
            clip, frame, rows, size = HEADER.unpack_from(content, at)
            end = at + HEADER.size + size
            if end > len(content):
                break
            self._kept[clip, frame] = (rows, content[at + HEADER.size : end])
            at = end
        os.truncate(path, at)  # an interrupted run may leave a part of a record

    def add(self, clip: int, frame: int, output: Output) -> None:
        """Keep the result of a frame."""
        if (clip, frame) in self._kept:
            return
        if isinstance(output, LabelMap):
            rows, content = len(output.labels), zlib.compress(output.labels.tobytes(), 1)
        elif isinstance(output, DenseMap):
            rows, content = len(output.values), _pack(output.values)
        else:
            rows, content = len(output), zlib.compress(_to_bytes(output), 1)
        self._kept[clip, frame] = (rows, content)
        if self._path is not None:
            self._unwritten += HEADER.pack(clip, frame, rows, len(content)) + content

    def get(self, clip: int, frame: int, like: Output) -> Output | None:
        """Return the result of a frame, or None if it wasn't evaluated.

        Args:
            clip: The clip's number.
            frame: The frame's position in its clip.
            like: A result of the same task.
        """
        kept = self._kept.get((clip, frame))
        if kept is None:
            return None
        rows, content = kept
        if isinstance(like, LabelMap):
            return LabelMap(np.frombuffer(zlib.decompress(content), np.uint8).reshape(rows, -1))
        if isinstance(like, DenseMap):
            return DenseMap(_unpack(content, rows))
        return _from_bytes(zlib.decompress(content), rows, like)

    def flush(self) -> None:
        """Write what was added to the file.

        Raises:
            OSError: If the file can't be written.
        """
        if self._path is not None and self._unwritten:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(self._unwritten)
            self._unwritten.clear()


def _to_bytes(objects: Detections) -> bytes:
    """Write a table of the boxes, and behind it, in numpy's format, the masks and keypoints if there are any."""
    file = io.BytesIO()
    table = np.column_stack([objects.xyxy, objects.confidence, objects.class_id]).astype(np.float32)
    file.write(table.tobytes())
    if objects.masks is not None:
        masks = objects.masks
        shapes = np.array([window.shape for window in masks.windows], np.int32).reshape(-1, 2)
        pixels = np.concatenate([np.zeros(0, np.bool_), *(window.ravel() for window in masks.windows)])
        for part in (np.array([masks.height, masks.width]), masks.corners, shapes, np.packbits(pixels)):
            np.save(file, part)
    if objects.keypoints is not None:
        np.save(file, objects.keypoints)
    return file.getvalue()


def _from_bytes(content: bytes, rows: int, like: Detections) -> Detections:
    """Read what `_to_bytes` wrote. `like` tells which parts there are."""
    file = io.BytesIO(content)
    table = np.frombuffer(file.read(24 * rows), np.float32).reshape(rows, 6)
    masks = keypoints = None
    if like.masks is not None:
        size, corners, shapes, bits = (np.load(file) for _ in range(4))
        sizes = shapes.prod(axis=1)
        pixels = np.unpackbits(bits, count=int(sizes.sum())).astype(np.bool_)
        parts = [pixels[end - size : end] for size, end in zip(sizes, sizes.cumsum(), strict=True)]
        windows = tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
        masks = InstanceMasks(int(size[0]), int(size[1]), corners, windows)
    if like.keypoints is not None:
        keypoints = np.load(file)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.intp), masks=masks, keypoints=keypoints)


def _pack(values: NDArray[np.float32]) -> bytes:
    """Compress a map in levels of the range that its agreement is measured in."""
    low, high = value_range(values)
    levels = np.clip((values - low) * (LEVELS / ((high - low) or 1.0)), -BEYOND, LEVELS + BEYOND)
    steps = np.diff(levels.round().astype(np.int16), axis=1, prepend=np.int16(0))  # which compress better
    return RANGE.pack(low, high) + zlib.compress(steps.tobytes(), 1)


def _unpack(content: bytes, rows: int) -> NDArray[np.float32]:
    low, high = RANGE.unpack_from(content)
    steps = np.frombuffer(zlib.decompress(content[RANGE.size :]), np.int16).reshape(rows, -1)
    values = low + np.cumsum(steps, axis=1) * (((high - low) or 1.0) / LEVELS)
    return np.asarray(values, np.float32)
