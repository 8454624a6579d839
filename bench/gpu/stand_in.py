"""A driver without a GPU whose warp kernels really run, compiled for the CPU behind the shim of the tests."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.cuda import kernels
from tests.engines.cuda.shim import NUMPY, Case, Shim
from tests.engines.tensorrt.fake_driver import FakeDriver

KINDS = {name: kind for kind, name in kernels.KERNELS.items()}


class ShimDriver(FakeDriver):
    """See `FakeDriver`. Kernels run when their stream is synchronised."""

    def __init__(self, folder: Path) -> None:
        """Use a folder for the compiled shim."""
        super().__init__()
        self._folder = folder / "shim"
        self._shim: Shim | None = None

    def launch(
        self,
        kernel: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        addresses: tuple[int, ...],
        numbers: tuple[int | float, ...],
        stream: int,
    ) -> None:
        """See `Driver.launch`."""
        super().launch(kernel, grid, block, addresses, numbers, stream)
        name = self.kernels[kernel][1]
        self.streams[stream].append(lambda: self._run(name, addresses, numbers))

    def _run(self, name: str, addresses: tuple[int, ...], numbers: tuple[int | float, ...]) -> None:
        """Run a kernel on the device's memory."""
        layout, dtype = KINDS[name]
        batch, channels, height, width, flow_height, flow_width = map(int, numbers)
        kind, shape = np.dtype(NUMPY[dtype]), (batch, channels, height, width)
        stored = channels if layout == "nchw" else -(-channels // kernels.CHANNELS) * kernels.CHANNELS

        def read(address: int) -> NDArray[np.float32]:
            values = self.memory(address, batch * stored * height * width * kind.itemsize).view(kind)
            planes: NDArray[np.float32] = values.astype(np.float32)
            if layout == "nchw":
                return planes.reshape(shape)
            return np.moveaxis(planes.reshape(batch, height, width, stored)[..., :channels], -1, 1)

        flow = self.memory(addresses[1], batch * 2 * flow_height * flow_width * kind.itemsize).view(kind)
        scale = read(addresses[2]) if addresses[2] else None
        planes = flow.reshape(batch, 2, flow_height, flow_width).astype(np.float32)
        case = Case(read(addresses[0]), planes, scale, dtype, layout)
        if self._shim is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shim = Shim.build(self._folder, (kernels.FOLDER / "warp.cuh").read_text("utf-8"))
        [warped] = self._shim.run([case])
        if layout == "hwc8":
            padding = [(0, 0)] * 3 + [(0, stored - channels)]
            warped = np.pad(np.moveaxis(warped, 1, -1), padding)
        written = np.ascontiguousarray(warped.astype(kind)).view(np.uint8).reshape(-1)
        self.memory(addresses[3], written.size)[:] = written

    def memory(self, address: int, size: int) -> NDArray[np.uint8]:
        """Return device memory in use, which may begin within a block."""
        start = max((block for block in self.blocks if block <= address), default=address)
        return super().memory(start, address - start + size)[address - start :]
