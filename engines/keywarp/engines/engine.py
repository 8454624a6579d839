"""A bundle compiled for a device: the two things that Algorithm 1 does with a frame."""

import os
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import cast

import numpy as np
import platformdirs
from numpy.typing import NDArray

from keywarp.engines.backends import BackendName, Precision, Program, open_backend
from keywarp.engines.backends.interface import Tensor
from keywarp.engines.bundle import Bundle
from keywarp.engines.fusion import FRAME, LABELS, fuse_key, fuse_propagate
from keywarp.engines.preparation import input_size, resize
from keywarp.engines.result import Segmentation

MAX_SIZES = 8  # input sizes that stay compiled at once; the least recently used goes first


@dataclass(frozen=True, slots=True, eq=False)
class KeyState:
    """A key frame's features and image, on the device."""

    size: tuple[int, int]  # (height, width) of the network's input
    tensors: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Programs:
    key: Program
    propagate: Program
    lock: Lock  # a program runs once at a time


class Engine:
    """Runs one bundle on one backend. Thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        backend: BackendName = "auto",
        precision: Precision = "auto",
        threads: int = 0,
        cache: Path | None = None,
    ) -> None:
        """Open the backend; graphs are compiled by `prepare`, or when the first frame of a size comes.

        Args:
            bundle: The bundle.
            backend: See `open_backend`.
            precision: See `open_backend`.
            threads: See `open_backend`.
            cache: Folder for compiled graphs; None: the user's cache folder (`KEYWARP_CACHE` overrides it).

        Raises:
            BackendError: The backend isn't there.
        """
        self.bundle = bundle
        self.backend = open_backend(backend, precision, threads, cache or _default_cache())
        self._programs: OrderedDict[tuple[int, int], Future[_Programs]] = OrderedDict()
        self._lock = Lock()

    def prepare(self, height: int, width: int) -> None:
        """Compile for frames of this size: seconds the first time, nothing after.

        Args:
            height: Of the frame, pixels.
            width: Of the frame, pixels.

        Raises:
            BackendError: The runtime refuses the graphs.
        """
        self._compiled(input_size(height, width, self.bundle.manifest.image))

    def key(self, frame: NDArray[np.uint8]) -> tuple[Segmentation, KeyState]:
        """Run the feature network and the head (Algorithm 1, lines 8-9).

        Args:
            frame: uint8 (H, W, 3), RGB, of any size.
        """
        size = input_size(frame.shape[0], frame.shape[1], self.bundle.manifest.image)
        programs = self._compiled(size)
        with programs.lock:
            outputs = programs.key.run({FRAME: resize(frame, *size)[np.newaxis]})
        labels = outputs.pop(LABELS)
        return _segmentation(labels), KeyState(size, outputs)

    def propagate(self, frame: NDArray[np.uint8], key: KeyState) -> Segmentation:
        """Warp the key frame's features to this frame and run the head (Algorithm 1, lines 11-12).

        Args:
            frame: uint8 (H, W, 3), RGB, of the key frame's size.
            key: What `key` returned for the key frame.
        """
        programs = self._compiled(key.size)
        with programs.lock:
            outputs = programs.propagate.run({FRAME: resize(frame, *key.size)[np.newaxis], **key.tensors})
        return _segmentation(outputs[LABELS])

    def _compiled(self, size: tuple[int, int]) -> _Programs:
        """The programs for an input size; the first to ask compiles, others who ask meanwhile wait for it."""
        with self._lock:
            future = self._programs.get(size)
            if mine := future is None:
                future = self._programs[size] = Future()
                while len(self._programs) > MAX_SIZES:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(size)
        if mine:
            try:
                future.set_result(self._compile(*size))
            except BaseException as error:  # noqa: BLE001 - others wait for this future
                with self._lock:
                    if self._programs.get(size) is future:  # the next frame tries again
                        del self._programs[size]
                future.set_exception(error)
        return future.result()

    def _compile(self, height: int, width: int) -> _Programs:
        key = fuse_key(self.bundle, height, width)
        propagate = fuse_propagate(self.bundle, height, width)
        return _Programs(
            key=self.backend.compile(key.model, key.resident),
            propagate=self.backend.compile(propagate.model, propagate.resident),
            lock=Lock(),
        )


def _segmentation(labels: Tensor) -> Segmentation:
    return Segmentation(cast("NDArray[np.uint8]", labels)[0])


def _default_cache() -> Path:
    return Path(os.environ.get("KEYWARP_CACHE") or platformdirs.user_cache_path("keywarp")) / "engines"
