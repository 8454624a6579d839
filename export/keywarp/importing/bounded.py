"""Run a function in a process of its own, with bounds on its memory and time.

Model files come from anywhere. A hostile one can ask a runtime for a tensor of terabytes or a loop without an end, or
crash it. The process that ran it is then the only one that suffers.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from keywarp.importing.errors import ImportingError

T = TypeVar("T")
CALL, ANSWER = "call.pickle", "answer.pickle"
# Each thread of a library would reserve address space, which the bound on memory counts.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run_bounded(function: Callable[..., T], *arguments: Any, memory: int, seconds: float) -> T:
    """Return what a function returns when it runs in a process of its own.

    Args:
        function: A function at the top of a module.
        arguments: Its arguments, which can be pickled.
        memory: The most memory of the process, in bytes. It is enforced on Linux and macOS.
        seconds: The most time.

    Raises:
        ImportingError: If the function raises it, needs more memory or time, or crashes.
    """
    with TemporaryDirectory(prefix="keywarp-import-") as folder:
        call, answer = Path(folder) / CALL, Path(folder) / ANSWER
        call.write_bytes(pickle.dumps((function, arguments)))
        command = [sys.executable, "-m", "keywarp.importing.bounded", folder, str(memory)]
        try:
            done = subprocess.run(
                command, env={**os.environ, **ENVIRONMENT}, capture_output=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise ImportingError(f"the network didn't load and run once within {seconds:.0f} s") from None
        if not answer.exists():
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            if any("MemoryError" in line or "bad_alloc" in line for line in lines[-3:]):
                raise ImportingError(_out_of_memory(memory))
            raise ImportingError(
                f"reading the file crashed with status {done.returncode}: {lines[-1] if lines else ''}"
            )
        result: T | ImportingError = pickle.loads(answer.read_bytes())
    if isinstance(result, ImportingError):
        raise result
    return result


def limit_memory(memory: int) -> None:
    """Bound this process's memory in bytes, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _out_of_memory(memory: int) -> str:
    return f"the network needs more than {memory / 1e9:.0f} GB of memory"


def _main(folder: Path, memory: int) -> None:
    """Make the call of a folder, and leave the answer there."""
    limit_memory(memory)
    function, arguments = pickle.loads((folder / CALL).read_bytes())
    answer: Any
    try:
        answer = function(*arguments)
    except ImportingError as error:
        answer = error
    except MemoryError:
        answer = ImportingError(_out_of_memory(memory))
    partial = folder / "partial"
    partial.write_bytes(pickle.dumps(answer))
    partial.rename(folder / ANSWER)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
