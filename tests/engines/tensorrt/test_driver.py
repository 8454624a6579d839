"""Every call of the driver through NVIDIA's real bindings, to a library that stands in for the driver's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu_check

HERE = Path(__file__).parent
CALLS = r"""
import ctypes, threading
import numpy as np
from keywarp.engines.backends.tensorrt.driver import CudaDriver, OutOfDeviceMemoryError
from keywarp.engines.devices import _find_in_cuda

driver = CudaDriver(1)
driver.activate()
address, sent, received = driver.allocate(1000), driver.pin(1000), driver.pin(1000)
stream, start, end = driver.open_stream(), driver.open_event(), driver.open_event()
sent[:] = np.arange(1000) % 256
driver.record(start, stream)
driver.upload(address, sent, stream)
other = driver.allocate(1000)
driver.copy(other, address, 1000, stream)
driver.download(received, other, stream)
driver.record(end, stream)
driver.wait(end)
driver.synchronize(stream)
print((received == sent).all(), driver.elapsed(start, end))
kernel = driver.load_kernel(b"\x7fELF and a program", "keywarp_warp_f32")
driver.launch(kernel, (1, 2, 3), (4, 5, 6), (address,), (42, 0.5), stream)
try:
    driver.allocate(2**50)
except OutOfDeviceMemoryError as error:
    print(error)
driver.follow(end, stream)
driver.begin_capture(stream)
graph = driver.end_capture(stream)
driver.launch_graph(graph, stream)
driver.close_graph(graph)
driver.free(other)
done = ctypes.c_int.in_dll(ctypes.CDLL("libcuda.so.1"), "keywarp_device_done")
done.value = 0
threading.Timer(0.1, setattr, (done, "value", 1)).start()
driver.wait(end)  # ends only if other threads run meanwhile
driver.free(address)
for pinned in (sent, received):
    driver.unpin(pinned.ctypes.data)
for event in (start, end):
    driver.close_event(event)
driver.close_stream(stream)
print(_find_in_cuda("0000:04:00.0", 0), _find_in_cuda("0000:05:00.0", 1))
"""


def test_the_bindings_take_every_argument(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings.driver")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    library = tmp_path / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", str(HERE / "fake_cuda.c"), "-Wl,-soname,libcuda.so.1", "-o", str(library)]
    subprocess.run(command, check=True)
    env = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CALLS], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(
        [
            "True 0.0025",
            "image ELF ",
            "kernel keywarp_warp_f32 of 0x55",
            "launch 0x66 1 2 3, 4 5 6, 0 0x77: 50462976 42 0.5 0",
            "0x77 follows 0x77 0",
            "capture 0x77 1",
            "graph 0x88 0",
            "run 0x99 in 0x77",
            "CUDA: cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY",
            "CudaDevice(index=1, name='NVIDIA H100 MIG 1g.10gb', memory=10737418240) None",
        ]
    )
