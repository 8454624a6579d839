"""R-FCN's last step on a device: the kernels of `detection.cu`, one after another in a stream, and one small download.

It finds what `RegionDetector` finds on the host, in the same order. The maps needn't be downloaded, which are most of
what a detection's graph gives: 16.9 MB a frame for 31 classes at 600x1000, against 2.4 kB of objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends.tensorrt.device_memory import Buffer, DeviceMemory, call_when_collected
from keywarp.engines.backends.tensorrt.driver import Driver, compile_kernels
from keywarp.engines.cuda.kernels import FOLDER, GRID_LIMIT, nvrtc_options
from keywarp.engines.detection.anchors import grid_anchors
from keywarp.engines.detection.regions import ANCHOR_DELTAS, BOX_MAPS, CLASS_MAPS, OBJECTNESS
from keywarp.engines.errors import BackendError
from keywarp.engines.manifest import RegionDetection
from keywarp.engines.result import Detections

KERNELS: Final = (
    *("keywarp_keys", "keywarp_clear", "keywarp_rank", "keywarp_propose", "keywarp_overlaps", "keywarp_suppress"),
    *("keywarp_vote", "keywarp_score", "keywarp_gather", "keywarp_select"),
)
THREADS: Final = 128  # per block
WORD: Final = 64  # boxes in a word of bits
ROW: Final = 6  # numbers of an object: x1, y1, x2, y2, confidence, class
# Without fused products, so that comparisons have the same outcome as on the host.
OPTIONS: Final = ("--fmad=false",)


def source() -> str:
    """Return the whole source in one text without includes, for NVRTC."""
    text = (FOLDER / "detection.cu").read_text("utf-8")
    return text.replace('#include "detection.cuh"', (FOLDER / "detection.cuh").read_text("utf-8"))


@dataclass(frozen=True, slots=True)
class _Launch:
    """One kernel on buffers that are known in advance, or are given by name with each frame."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    pointers: tuple[Buffer | str | None, ...]
    numbers: tuple[int | float, ...]


class DeviceRegionDetector:
    """Finds objects in an R-FCN head's maps on the device, for one input size; see `RegionDetector`."""

    def __init__(
        self,
        driver: Driver,
        memory: DeviceMemory,
        capability: tuple[int, int],
        settings: RegionDetection,
        classes: int,
        height: int,
        width: int,
    ) -> None:
        """Allocate all memory that frames need, and load the kernels.

        Args:
            driver: The device's driver.
            memory: The device's pool of buffers.
            capability: The device's compute capability.
            settings: The manifest's settings.
            classes: The number of classes, including the background, which is the first.
            height: The height of the networks' input in pixels.
            width: The width of the networks' input in pixels.

        Raises:
            BackendError: If the device is full, NVRTC can't compile the kernels, or there are too many boxes.
        """
        self._driver, self._memory = driver, memory
        self._stream = driver.open_stream()
        call_when_collected(self, driver.close_stream, self._stream)
        image = compile_kernels(source(), (*nvrtc_options(*capability), *OPTIONS))
        self._kernels = {name: driver.load_kernel(image, name) for name in KERNELS}
        rows, columns = -(-height // settings.stride), -(-width // settings.stride)
        anchors = grid_anchors(settings, rows, columns)
        candidates, regions = min(settings.candidates, len(anchors)), settings.proposals
        pairs = regions * classes
        if max(candidates, pairs) > GRID_LIMIT:
            raise BackendError(f"a device's kernels compare at most {GRID_LIMIT} boxes, not {max(candidates, pairs)}")
        self._limit = settings.limit
        self._objects = self._buffer(np.float32, (1 + settings.limit) * ROW)
        self._download = self._pinned((1 + settings.limit) * ROW * 4).view(np.float32)
        self._launches = (
            *self._proposals(settings, anchors, candidates, height, width),
            *self._selection(settings, classes, rows, columns, height, width),
        )

    def enqueue(self, maps: Mapping[str, int], stream: int | None = None) -> None:
        """Queue all kernels and the download of the objects.

        Args:
            maps: The device addresses of the head's outputs, in float, by name; see `RegionDetector`.
            stream: The stream to queue it in, or None for this detector's own.
        """
        stream = self._stream if stream is None else stream
        for launch in self._launches:
            addresses = tuple(
                maps[part] if isinstance(part, str) else part.address if part else 0 for part in launch.pointers
            )
            kernel = self._kernels[launch.kernel]
            self._driver.launch(kernel, launch.grid, launch.block, addresses, launch.numbers, stream)
        self._driver.download(self._download, self._objects.address, stream)

    def collect(self, stream: int | None = None) -> Detections:
        """Wait for the objects that were queued last, and return them."""
        self._driver.synchronize(self._stream if stream is None else stream)
        count = int(self._download[0])
        rows = self._download[ROW : ROW * (1 + count)].reshape(count, ROW).copy()
        return Detections(rows[:, :4].copy(), rows[:, 4].copy(), rows[:, 5].astype(np.intp))

    def regions(self) -> NDArray[np.float32]:
        """Return the proposals of the frame that was queued last, (P, 4), with empty boxes in place of missing ones."""
        pinned = self._pinned(self._regions.size).view(np.float32)
        self._driver.download(pinned, self._regions.address, self._stream)
        self._driver.synchronize(self._stream)
        return pinned.reshape(-1, 4).copy()

    def _proposals(
        self, settings: RegionDetection, anchors: NDArray[np.float32], candidates: int, height: int, width: int
    ) -> tuple[_Launch, ...]:
        """Return the launches from the proposal branch's maps to the regions."""
        count, words = len(anchors), -(-candidates // WORD)
        keys, order = self._buffer(np.uint64, count), self._buffer(np.int32, candidates)
        boxes, removes = self._buffer(np.float32, 4 * candidates), self._buffer(np.uint64, candidates * words)
        gone, kept = self._buffer(np.uint64, words), self._buffer(np.int32, settings.proposals)
        self._regions = self._buffer(np.float32, 4 * settings.proposals)
        placed, unit = self._filled(anchors), self._filled(np.ones(4))
        iou = _least_above(settings.proposal_iou)
        one = (1, 1, 1)
        return (
            _Launch("keywarp_keys", *_line(count), (OBJECTNESS, keys), (count,)),
            _Launch("keywarp_clear", *_line(candidates), (order,), (candidates,)),
            _Launch("keywarp_rank", *_line(count), (keys, order), (count, candidates)),
            _Launch(
                "keywarp_propose",
                *_line(candidates),
                (ANCHOR_DELTAS, placed, order, unit, boxes),
                (candidates, height, width),
            ),
            _Launch("keywarp_overlaps", *_rows(words, candidates), (boxes, None, removes), (candidates, words, iou)),
            _Launch(
                "keywarp_suppress",
                one,
                one,
                (boxes, removes, gone, kept, self._regions),
                (candidates, words, settings.proposals),
            ),
        )

    def _selection(
        self, settings: RegionDetection, classes: int, rows: int, columns: int, height: int, width: int
    ) -> tuple[_Launch, ...]:
        """Return the launches from the regions to the objects."""
        count, bins = settings.proposals, settings.pooling
        pairs, words = count * classes, -(-count * classes // WORD)
        logits, deltas = self._buffer(np.float32, pairs), self._buffer(np.float32, 4 * count)
        scores, boxes = self._buffer(np.float32, pairs), self._buffer(np.float32, 4 * count)
        keys, order = self._buffer(np.uint64, pairs), self._buffer(np.int32, pairs)
        chosen, groups = self._buffer(np.float32, 4 * pairs), self._buffer(np.int32, pairs)
        removes, gone = self._buffer(np.uint64, pairs * words), self._buffer(np.uint64, words)
        kept, std = self._buffer(np.int32, settings.limit), self._filled(np.array(settings.box_std, np.float64))
        scale = float(np.float32(1 / settings.stride))
        size, one = (bins, rows, columns), (1, 1, 1)
        regions = self._regions
        return (
            _Launch("keywarp_vote", *_rows(classes, count), (CLASS_MAPS, regions, logits), (*size, classes, scale)),
            _Launch("keywarp_vote", *_rows(4, count), (BOX_MAPS, regions, deltas), (*size, 4, scale)),
            _Launch(
                "keywarp_score",
                *_line(count),
                (logits, deltas, regions, std, scores, boxes, keys),
                (count, classes, height, width, float(np.float32(settings.threshold))),
            ),
            _Launch("keywarp_clear", *_line(pairs), (order,), (pairs,)),
            _Launch("keywarp_rank", *_line(pairs), (keys, order), (pairs, pairs)),
            _Launch("keywarp_gather", *_line(pairs), (boxes, order, chosen, groups), (pairs, count)),
            _Launch(
                "keywarp_overlaps",
                *_rows(words, pairs),
                (chosen, groups, removes),
                (pairs, words, _least_above(settings.iou)),
            ),
            _Launch(
                "keywarp_select",
                one,
                one,
                (chosen, groups, removes, gone, kept, order, scores, self._objects),
                (pairs, words, settings.limit, count, classes),
            ),
        )

    def _buffer(self, kind: Any, count: int) -> Buffer:
        return self._memory.buffer(count * np.dtype(kind).itemsize)

    def _filled(self, values: NDArray[Any]) -> Buffer:
        """Return a buffer with values that stay."""
        buffer, pinned = self._memory.buffer(values.nbytes), self._pinned(values.nbytes)
        pinned[:] = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        self._driver.upload(buffer.address, pinned, self._stream)
        self._driver.synchronize(self._stream)
        return buffer

    def _pinned(self, size: int) -> NDArray[np.uint8]:
        pinned = self._driver.pin(size)
        call_when_collected(self, self._driver.unpin, pinned.ctypes.data)
        return pinned


def _line(count: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return grid and block of a thread for each of a number of things."""
    return (-(-count // THREADS), 1, 1), (THREADS, 1, 1)


def _rows(across: int, down: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return grid and block of a thread for each place of some rows."""
    threads = min(THREADS, -(-across // 32) * 32)
    return (-(-across // threads), down, 1), (threads, 1, 1)


def _least_above(iou: float) -> float:
    """Return the highest float32 that isn't above an overlap; see `suppress`."""
    highest = np.float32(iou)
    return float(np.nextafter(highest, np.float32(-1)) if float(highest) > iou else highest)
