"""R-FCN's last step on a device: the kernels of `detection.cu`, one after another in a stream, before a small download.

It finds what `RegionDetector` finds on the host, in the same order. The maps needn't be downloaded, which are most of
what a detection's graph gives: 16.9 MB a frame for 31 classes at 600x1000, against 2.4 kB of objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends.tensorrt.device_kernels import DeviceKernels, Extent, line, rows
from keywarp.engines.backends.tensorrt.device_memory import Buffer, DeviceMemory
from keywarp.engines.backends.tensorrt.driver import Driver
from keywarp.engines.detection.anchors import grid_anchors
from keywarp.engines.detection.regions import ANCHOR_DELTAS, BOX_MAPS, CLASS_MAPS, OBJECTNESS, map_shapes
from keywarp.engines.errors import BackendError
from keywarp.engines.last_step import MOST_BOXES, ROW
from keywarp.engines.manifest import RegionDetection

KERNELS: Final = (
    *("keywarp_keys", "keywarp_clear", "keywarp_rank", "keywarp_propose", "keywarp_overlaps", "keywarp_suppress"),
    *("keywarp_vote", "keywarp_score", "keywarp_gather", "keywarp_select"),
)
WORD: Final = 64  # boxes in a word of bits
_OUTPUT: Final = "objects"  # the name of the result among the addresses


@dataclass(frozen=True, slots=True)
class _Launch:
    """One kernel on buffers that are known in advance, or are given by name with each frame."""

    kernel: str
    grid: Extent
    block: Extent
    pointers: tuple[Buffer | str | None, ...]
    numbers: tuple[int | float, ...]


class DeviceRegionDetector:
    """Finds objects in an R-FCN head's maps on the device, for one input size; see `RegionDetector`.

    Attributes:
        regions: The proposals of the image that ran last, (P, 4), with empty boxes in place of missing ones.
    """

    def __init__(
        self,
        driver: Driver,
        memory: DeviceMemory,
        capability: tuple[int, int],
        settings: RegionDetection,
        classes: int,
        height: int,
        width: int,
        batch: int = 1,
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
            batch: The number of images.

        Raises:
            BackendError: If the device is full, NVRTC can't compile the kernels, or there are too many boxes.
        """
        self._kernels = DeviceKernels(driver, memory, capability, "detection", KERNELS)
        shapes = map_shapes(settings, classes, height, width)
        _, cell_rows, cell_columns, _ = shapes[OBJECTNESS]
        anchors = grid_anchors(settings, cell_rows, cell_columns)
        candidates, pairs = min(settings.candidates, len(anchors)), settings.proposals * classes
        if max(candidates, pairs) > MOST_BOXES:
            raise BackendError(f"a device's kernels compare at most {MOST_BOXES} boxes, not {max(candidates, pairs)}")
        self._batch = batch
        # The size of each map of an image in bytes, in the order of `HEAD_OUTPUTS`.
        self._sizes = {name: 4 * rows_ * columns * count for name, (_, rows_, columns, count) in shapes.items()}
        self._result = 4 * (1 + settings.limit) * ROW
        self.regions = self._kernels.buffer(np.float32, 4 * settings.proposals)
        self._launches = (
            *self._proposals(settings, anchors, candidates, height, width),
            *self._selection(settings, classes, cell_rows, cell_columns, height, width),
        )

    def enqueue(self, inputs: Sequence[int], output: int, stream: int) -> None:
        """Queue all kernels, for one image after another; see `LastStepKernels`.

        Args:
            inputs: The device addresses of the head's outputs, in float, in the order of `HEAD_OUTPUTS`.
            output: The device address of the objects, see `read_objects`.
            stream: The stream to queue them in.
        """
        for image in range(self._batch):
            places = {
                name: address + image * size for (name, size), address in zip(self._sizes.items(), inputs, strict=True)
            }
            places[_OUTPUT] = output + image * self._result
            for launch in self._launches:
                addresses = tuple(
                    places[part] if isinstance(part, str) else part.address if part else 0 for part in launch.pointers
                )
                self._kernels.launch(launch.kernel, launch.grid, launch.block, addresses, launch.numbers, stream)

    def _proposals(
        self, settings: RegionDetection, anchors: NDArray[np.float32], candidates: int, height: int, width: int
    ) -> tuple[_Launch, ...]:
        """Return the launches from the proposal branch's maps to the regions."""
        count, words = len(anchors), -(-candidates // WORD)
        keys, order = self._kernels.buffer(np.uint64, count), self._kernels.buffer(np.int32, candidates)
        boxes, removes = (
            self._kernels.buffer(np.float32, 4 * candidates),
            self._kernels.buffer(np.uint64, candidates * words),
        )
        kept = self._kernels.buffer(np.int32, settings.proposals)
        placed, unit = self._kernels.constant(anchors), self._kernels.constant(np.ones(4))
        iou = _least_above(settings.proposal_iou)
        one = (1, 1, 1)
        return (
            _Launch("keywarp_keys", *line(count), (OBJECTNESS, keys), (count,)),
            _Launch("keywarp_clear", *line(candidates), (order,), (candidates,)),
            _Launch("keywarp_rank", *line(count), (keys, order), (count, candidates)),
            _Launch(
                "keywarp_propose",
                *line(candidates),
                (ANCHOR_DELTAS, placed, order, unit, boxes),
                (candidates, height, width),
            ),
            _Launch("keywarp_overlaps", *rows(words, candidates), (boxes, None, removes), (candidates, words, iou)),
            _Launch(
                "keywarp_suppress",
                one,
                one,
                (boxes, removes, kept, self.regions),
                (candidates, words, settings.proposals),
            ),
        )

    def _selection(
        self, settings: RegionDetection, classes: int, cell_rows: int, cell_columns: int, height: int, width: int
    ) -> tuple[_Launch, ...]:
        """Return the launches from the regions to the objects."""
        count, bins = settings.proposals, settings.pooling
        pairs, words = count * classes, -(-count * classes // WORD)
        logits, deltas = self._kernels.buffer(np.float32, pairs), self._kernels.buffer(np.float32, 4 * count)
        scores, boxes = self._kernels.buffer(np.float32, pairs), self._kernels.buffer(np.float32, 4 * count)
        keys, order = self._kernels.buffer(np.uint64, pairs), self._kernels.buffer(np.int32, pairs)
        chosen, groups = self._kernels.buffer(np.float32, 4 * pairs), self._kernels.buffer(np.int32, pairs)
        removes = self._kernels.buffer(np.uint64, pairs * words)
        kept, std = (
            self._kernels.buffer(np.int32, settings.limit),
            self._kernels.constant(np.array(settings.box_std, np.float64)),
        )
        scale = float(np.float32(1 / settings.stride))
        size, one = (bins, cell_rows, cell_columns), (1, 1, 1)
        regions = self.regions
        return (
            _Launch("keywarp_vote", *rows(classes, count), (CLASS_MAPS, regions, logits), (*size, classes, scale)),
            _Launch("keywarp_vote", *rows(4, count), (BOX_MAPS, regions, deltas), (*size, 4, scale)),
            _Launch(
                "keywarp_score",
                *line(count),
                (logits, deltas, regions, std, scores, boxes, keys),
                (count, classes, height, width, float(np.float32(settings.threshold))),
            ),
            _Launch("keywarp_clear", *line(pairs), (order,), (pairs,)),
            _Launch("keywarp_rank", *line(pairs), (keys, order), (pairs, pairs)),
            _Launch("keywarp_gather", *line(pairs), (boxes, order, chosen, groups), (pairs, count)),
            _Launch(
                "keywarp_overlaps",
                *rows(words, pairs),
                (chosen, groups, removes),
                (pairs, words, _least_above(settings.iou)),
            ),
            _Launch(
                "keywarp_select",
                one,
                one,
                (chosen, groups, removes, kept, order, scores, _OUTPUT),
                (pairs, words, settings.limit, count, classes),
            ),
        )


def _least_above(iou: float) -> float:
    """Return the highest float32 that isn't above an overlap; see `suppress`."""
    highest = np.float32(iou)
    return float(np.nextafter(highest, np.float32(-1)) if float(highest) > iou else highest)
