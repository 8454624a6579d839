"""The number of glibc's arenas, in a process of its own."""

import os
import subprocess
import sys

import pytest

ALLOCATE = """
import ctypes, sys, threading
from keywarp.engines.memory import limit_arenas

limit_arenas()
libc, ready = ctypes.CDLL(None), threading.Barrier(8)
libc.malloc.restype = ctypes.c_void_p

def allocate():
    ready.wait()
    libc.malloc(ctypes.c_size_t(10_000))
    ready.wait()  # an arena is used again once its thread ends

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="arenas are glibc's")
@pytest.mark.parametrize(("variable", "most"), [(None, 2), ("6", 6)])
def test_threads_share_two_arenas_unless_the_environment_says_otherwise(variable: str | None, most: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    if variable:
        environment["MALLOC_ARENA_MAX"] = variable
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE], capture_output=True, encoding="utf-8", check=True, timeout=60, env=environment
    )
    assert done.stdout.count("<heap nr=") == most
