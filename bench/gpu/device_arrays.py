"""Memory on the device for checks: filled from arrays, read back, and surrounded by guards."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.backends.tensorrt.driver import Driver

POISON: Final = 0xFF  # NaN in all float types, which reveals what isn't written
GUARD: Final = 256  # bytes behind a block, which must stay as they are


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the device's memory, with a guard behind it."""

    address: int
    size: int  # bytes without the guard


class DeviceArrays:
    """Blocks of memory and one stream, freed at the end of a `with`."""

    def __init__(self, driver: Driver) -> None:
        """Open a stream on a device.

        Args:
            driver: The device's driver.
        """
        self.driver = driver
        driver.activate()
        self.stream = driver.open_stream()
        self._blocks: list[Block] = []

    def __enter__(self) -> "DeviceArrays":
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free everything."""
        self.driver.synchronize(self.stream)
        for block in self._blocks:
            self.driver.free(block.address)
        self.driver.close_stream(self.stream)

    def poisoned(self, size: int) -> Block:
        """Return a block of poison, in the guard as well."""
        block = Block(self.driver.allocate(size + GUARD), size)
        self._blocks.append(block)
        self._upload(block.address, np.full(size + GUARD, POISON, np.uint8))
        return block

    def filled(self, content: bytes | NDArray[Any], shift: int = 0) -> Block:
        """Return a block with content that begins `shift` bytes behind its start."""
        data = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content.view(np.uint8).reshape(-1)
        block = self.poisoned(data.size + shift)
        if data.size:
            self._upload(block.address + shift, data)
        return block

    def read(self, block: Block) -> tuple[bytes, bool]:
        """Return a block's content, and whether its guard is untouched."""
        pinned = self.driver.pin(block.size + GUARD)
        self.driver.download(pinned, block.address, self.stream)
        self.driver.synchronize(self.stream)
        content, untouched = pinned[: block.size].tobytes(), bool((pinned[block.size :] == POISON).all())
        self.driver.unpin(pinned.ctypes.data)
        return content, untouched

    def _upload(self, address: int, data: NDArray[np.uint8]) -> None:
        pinned = self.driver.pin(data.size)
        pinned[:] = data
        self.driver.upload(address, pinned, self.stream)
        self.driver.synchronize(self.stream)
        self.driver.unpin(pinned.ctypes.data)
