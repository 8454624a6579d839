"""Buffers on the device: counted, given back when nobody holds them, and used again for the next of their size."""

import weakref
from collections import deque
from threading import Lock
from typing import Any

from keywarp.engines.backends.tensorrt.driver import Driver, OutOfDeviceMemoryError
from keywarp.engines.errors import BackendError


class Buffer:
    """Memory on the device, for as long as somebody holds this object."""

    __slots__ = ("__weakref__", "_memory", "address", "size")

    def __init__(self, memory: "DeviceMemory", address: int, size: int) -> None:
        self._memory = memory  # which frees what came back when its last buffer has
        self.address = address
        self.size = size  # bytes


class DeviceMemory:
    """What one backend holds on its device. Thread-safe.

    Key features come and go with every key frame of every stream, always in the same few sizes; allocating would stop
    the device each time.
    """

    def __init__(self, driver: Driver) -> None:
        """Hold nothing.

        Args:
            driver: Of the device.
        """
        self._driver = driver
        self._lock = Lock()
        self._idle: dict[int, list[int]] = {}  # addresses by size
        self._returned: deque[tuple[int, int]] = (
            deque()
        )  # size, address: from finalizers, which must not wait for locks
        self._held = 0
        when_gone(self, _free, driver, self._idle, self._returned)

    @property
    def used(self) -> int:
        """Bytes in buffers that somebody holds."""
        with self._lock:
            self._collect()
            return self._held - sum(size * len(addresses) for size, addresses in self._idle.items())

    def buffer(self, size: int) -> Buffer:
        """A buffer with any content.

        Raises:
            BackendError: The device is full; says how much is in use.
        """
        with self._lock:
            self._collect()
            idle = self._idle.get(size)
            address = idle.pop() if idle else self._allocate(size)
        buffer = Buffer(self, address, size)
        when_gone(buffer, self._returned.append, (size, address))
        return buffer

    def _allocate(self, size: int) -> int:
        try:
            address = self._driver.allocate(size)
        except OutOfDeviceMemoryError:
            self._trim()
            try:
                address = self._driver.allocate(size)
            except OutOfDeviceMemoryError as error:
                raise BackendError(
                    f"the GPU is full: no {size / 1e6:.1f} MB left beside the {self._held / 1e6:.1f} MB that this "
                    "model's streams hold; serve fewer streams or models on it"
                ) from error
        self._held += size
        return address

    def _trim(self) -> None:
        for size, addresses in self._idle.items():
            while addresses:
                self._driver.free(addresses.pop())
                self._held -= size

    def _collect(self) -> None:
        while self._returned:
            size, address = self._returned.popleft()
            self._idle.setdefault(size, []).append(address)


def _free(driver: Driver, idle: dict[int, list[int]], returned: deque[tuple[int, int]]) -> None:
    for address in [a for addresses in idle.values() for a in addresses] + [a for _, a in returned]:
        driver.free(address)


def when_gone(owner: object, release: Any, *arguments: Any) -> None:
    """Call `release` when nobody holds `owner` any more; at the process's end the driver cleans up by itself."""
    weakref.finalize(owner, release, *arguments).atexit = False
