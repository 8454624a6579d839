"""Run a function in a process of its own, with bounds on its memory and time.

Model files come from anywhere. A hostile one can ask a runtime for a tensor of terabytes or a loop without an end, or
crash it. The process that ran it is then the only one that suffers.
"""

import contextlib
import os
import pickle
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any, Literal, TypeVar

from keywarp.engines import EngineError
from keywarp.importing.errors import ImportingError

T = TypeVar("T")
Progress = Callable[[Any], None]  # is told what begins, as a string, and what was found
# Each thread of a library would reserve memory, which the bound counts.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
OUT_OF_MEMORY = re.compile(
    r"MemoryError|bad_alloc|failed to allocate memory|could not allocate|cannot allocate memory|can't allocate memory"
    r"|out of memory|insufficient memory|can't start new thread|resource temporarily unavailable",
    re.IGNORECASE,
)
LAST_LINES = 3  # of a process's log, in which the reason for its end is

_bounded = False  # whether this process was started here


@dataclass(frozen=True)
class _Message:
    """What a bounded process says to the one that started it."""

    kind: Literal["progress", "returned", "raised"]
    value: Any


def run_bounded(
    function: Callable[..., T], *arguments: Any, memory: int, seconds: float, progress: Progress | None = None
) -> T:
    """Return what a function returns when it runs in a process of its own.

    In a process that was started so, it runs at once, within the bounds that hold already.

    Args:
        function: A function at the top of a module.
        arguments: Its arguments, which can be pickled.
        memory: The most memory of the process, in bytes. It is enforced on Linux.
        seconds: The most time of each step. A step ends when the function reports progress.
        progress: Is told what the function reports to its own argument `progress`, and can be pickled. Strings say
            what begins. By default the function takes no such argument.

    Raises:
        ImportingError: If the function raises it, needs more memory or time, or crashes.
        keywarp.engines.EngineError, OSError: If the function raises it.
    """
    if _bounded:
        return function(*arguments) if progress is None else function(*arguments, progress=progress)
    with TemporaryFile() as log, _process(log, memory) as process, _Watch(process, seconds) as watch:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # if it crashed, see below
            pickle.dump((function, arguments, progress is not None), process.stdin)
            process.stdin.flush()  # it stays open: its end tells the process that this one is gone
        step = "reading the file"
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while (message := pickle.load(process.stdout)).kind == "progress":
                watch.restart()
                step = message.value if isinstance(message.value, str) else step
                if progress is not None:
                    progress(message.value)
            if message.kind == "raised":
                raise message.value
            returned: T = message.value
            return returned
        status = process.wait()
        if watch.expired:
            raise ImportingError(f"{step} took more than {seconds:.0f} s: allow more if the network is only large")
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
        if any(OUT_OF_MEMORY.search(line) for line in lines[-LAST_LINES:]):
            raise ImportingError(_out_of_memory(memory))
        raise ImportingError(f"{step} crashed with status {status}: {lines[-1] if lines else ''}")


def limit_memory(memory: int) -> None:
    """Bound what this process may write to in memory, in bytes, where the system can.

    Memory that is only reserved, as drivers of graphics cards do, doesn't count.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def _process(log: Any, memory: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that makes a call, and end it if it still runs."""
    command = [sys.executable, "-c", "from keywarp.importing.bounded import main; main()", str(memory)]
    environment = {**os.environ, **ENVIRONMENT}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):  # of arguments that it didn't read
                process.stdin.close()  # type: ignore[union-attr]  # it is a pipe


class _Watch:
    """Ends a process when a step of it takes too long."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self.expired = False
        self._process, self._seconds = process, seconds
        self._timer = self._start()

    def restart(self) -> None:
        """Begin to measure the next step."""
        self._timer.cancel()
        if not self.expired:
            self._timer = self._start()

    def __enter__(self) -> "_Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _start(self) -> threading.Timer:
        timer = threading.Timer(self._seconds, self._expire)
        timer.daemon = True
        timer.start()
        return timer

    def _expire(self) -> None:
        self.expired = True
        self._process.kill()


def _out_of_memory(memory: int) -> str:
    return f"the network needs more than {memory / 1e9:.1f} GB of memory: allow more if it is only large"


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], tell: Progress | None, memory: int) -> _Message:
    """Make a call, and return how it ended."""
    try:
        keywords = {} if tell is None else {"progress": tell}
        return _Message("returned", function(*arguments, **keywords))
    except MemoryError:
        return _Message("raised", ImportingError(_out_of_memory(memory)))
    except (ImportingError, EngineError, OSError) as error:
        enough = not OUT_OF_MEMORY.search(str(error))
        return _Message("raised", error if enough else ImportingError(_out_of_memory(memory)))


def main() -> None:
    """Make the call that comes on the standard input, and tell the parent how it ended."""
    global _bounded
    memory = int(sys.argv[1])
    limit_memory(memory)
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the messages
    _bounded = True

    def send(message: _Message) -> None:
        pickle.dump(message, messages)
        messages.flush()

    function, arguments, reports = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tell = (lambda value: send(_Message("progress", value))) if reports else None
    try:
        send(_answer(function, arguments, tell, memory))
    except Exception:  # noqa: BLE001 - a fault of ours; Python's own exit would hang on the thread above and abort
        traceback.print_exc()
        os._exit(1)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, even if it was killed."""
    sys.stdin.buffer.read()
    os._exit(1)
