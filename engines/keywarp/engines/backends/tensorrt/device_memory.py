"""A pool of buffers on the device. Released buffers are reused for later ones of the same size."""

import weakref
from collections import deque
from threading import Lock
from typing import Any

from keywarp.engines.backends.tensorrt.driver import Driver, OutOfDeviceMemoryError
from keywarp.engines.errors import BackendError


class Event:
    """A point in time on the device, in a stream."""

    __slots__ = ("__weakref__", "number", "stream")

    def __init__(self, driver: Driver, stream: int) -> None:
        self.number = driver.open_event()
        self.stream = stream
        call_when_collected(self, driver.close_event, self.number)


class Buffer:
    """Memory on the device, reserved as long as this object is referenced.

    Attributes:
        address: Its address.
        size: Its size in bytes.
        written: When its content is complete: the last event of the run that writes it, or None once that is over.
    """

    __slots__ = ("__weakref__", "_memory", "address", "size", "written")

    def __init__(self, memory: "DeviceMemory", address: int, size: int) -> None:
        self._memory = memory  # keeps the pool alive until its last buffer is released
        self.address = address
        self.size = size
        self.written: Event | None = None


class DeviceMemory:
    """The pool of one backend's buffers on its device. It is thread-safe.

    Every key frame of every stream needs memory for its features, always in the same few sizes. The pool exists because
    each allocation would stall the device.
    """

    def __init__(self, driver: Driver) -> None:
        """Start with an empty pool.

        Args:
            driver: The device's driver.
        """
        self._driver = driver
        self._lock = Lock()
        self._idle: dict[int, list[int]] = {}  # addresses by size
        # (size, address) of released buffers. Finalizers add to it, and they must not wait for locks.
        self._returned: deque[tuple[int, int]] = deque()
        self._held = 0  # bytes allocated, including idle buffers
        call_when_collected(self, _free, driver, self._idle, self._returned)

    @property
    def used(self) -> int:
        """The bytes of all buffers in use."""
        with self._lock:
            self._collect()
            return self._held - sum(size * len(addresses) for size, addresses in self._idle.items())

    def buffer(self, size: int) -> Buffer:
        """Return a buffer with arbitrary content.

        Args:
            size: The buffer's size in bytes.

        Raises:
            BackendError: If the device is full. The message says how much is in use.
        """
        with self._lock:
            self._collect()
            idle = self._idle.get(size)
            address = idle.pop() if idle else self._allocate(size)
        buffer = Buffer(self, address, size)
        call_when_collected(buffer, self._returned.append, (size, address))
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
                    f"the GPU is full: {size / 1e6:.1f} MB can't be allocated, and this model's streams hold "
                    f"{self._held / 1e6:.1f} MB: serve fewer streams or models on this GPU"
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


def call_when_collected(owner: object, release: Any, *arguments: Any) -> None:
    """Call `release` when `owner` is garbage-collected. At the process's end the driver cleans up by itself."""
    weakref.finalize(owner, release, *arguments).atexit = False
