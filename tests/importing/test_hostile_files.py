"""Files that can't be imported: one sentence each, no crash, and bounded memory and time."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keywarp.importing import Check, Findings, ImportOptions, import_file, model_file
from keywarp.importing.bounded import run_bounded
from keywarp.importing.errors import ImportingError
from keywarp.importing.model_file import _read, read_model
from tests.importing.hostile import HOSTILE, SLEEPING_ARRAY, SLEEPING_LOOP, HostileFile, Write, network, saved

LONGEST = 600  # characters of an error


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_file_is_refused_in_one_sentence(hostile: HostileFile, tmp_path: Path) -> None:
    path = hostile.write(tmp_path)
    # Usually in this process, because starting another takes longer than all the rest
    read = partial(read_model, max_seconds=hostile.seconds) if hostile.costly else _read
    with pytest.raises(ImportingError, match=hostile.says) as caught:
        read(path, None)
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < LONGEST + len(str(path)), message


def test_a_file_is_read_in_a_process_with_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "BASE_MEMORY", 2**25)
    path = saved(network(), tmp_path)
    with pytest.raises(ImportingError, match=r"model.onnx can't be imported: .*(memory|crashed)"):
        read_model(path)


def test_the_network_that_the_hostile_files_are_made_of_is_fine(tmp_path: Path) -> None:
    model = read_model(saved(network(), tmp_path))
    assert [(output.name, output.shape) for output in model.outputs] == [("scores", (1, 2, 32, 32))]


def test_outputs_without_a_shape_are_accepted(tmp_path: Path) -> None:
    model = network()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert _read(saved(model, tmp_path), None).outputs[0].shape == (1, 2, 32, 32)


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path in (tmp_path, tmp_path / "missing.onnx", pipe):
        with pytest.raises(ImportingError, match=r"can't be read|isn't a file"):
            read_model(path)


BRIGHT = [np.full((64, 64, 3), 255, np.uint8)] * 2  # frames


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (SLEEPING_ARRAY, r"needs more than \d+\.\d GB of memory"),
        (SLEEPING_LOOP, r"^[a-z ]+ took more than 8 s"),
    ],
    ids=["memory", "time"],
)
def test_a_network_that_explodes_on_a_bright_frame_is_refused_in_one_sentence(
    tmp_path: Path, write: Write, says: str
) -> None:
    file = write(tmp_path)
    assert _read(file, None).outputs  # on whose dark picture it is harmless
    with pytest.raises(ImportingError, match=says):
        import_file(file, ImportOptions(), BRIGHT, tmp_path / "bundle", seconds=8)
    assert not (tmp_path / "bundle").exists()


def test_an_import_reports_what_it_does_and_finds(tmp_path: Path) -> None:
    heard: list[Any] = []
    manifest = import_file(
        saved(network(), tmp_path), ImportOptions(), BRIGHT, tmp_path / "bundle", seconds=60, progress=heard.append
    )
    assert manifest is not None
    assert (tmp_path / "bundle" / "bundle.json").exists()
    assert heard[0] == "reading the file"
    assert [type(found) for found in heard if not isinstance(found, str)] == [Findings, *[Check] * 6]


def test_memory_for_an_import_can_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(ImportingError, match=r"needs more than 0\.1 GB of memory|crashed"):
        import_file(saved(network(), tmp_path), ImportOptions(), BRIGHT, None, memory=10**8)


def chatter(count: int, *, progress: Any) -> str:
    """Report numbers, and print more than a pipe holds."""
    for number in range(count):
        print("x" * 10_000)
        progress(number)
    return "done"


def test_what_a_bounded_function_prints_does_not_disturb_its_reports() -> None:
    heard: list[int] = []
    assert run_bounded(chatter, 30, memory=2**31, seconds=30, progress=heard.append) == "done"
    assert heard == list(range(30))


def crash() -> None:
    os.abort()


def test_a_crash_is_one_sentence() -> None:
    with pytest.raises(ImportingError, match=r"reading the file crashed with status -6"):
        run_bounded(crash, memory=2**31, seconds=30)


def fail() -> None:
    raise LookupError("nothing is there")


def test_an_exception_that_nobody_expected_is_named() -> None:
    with pytest.raises(ImportingError, match=r"crashed with status 1: LookupError: nothing is there"):
        run_bounded(fail, memory=2**31, seconds=30)


STARTER = """
from keywarp.importing.bounded import run_bounded
from tests.importing.test_hostile_files import wait
run_bounded(wait, memory=2**31, seconds=100, progress=lambda process: print(process, flush=True))
"""


def wait(*, progress: Any) -> None:
    """Report this process, and do nothing for long."""
    progress(os.getpid())
    time.sleep(100)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked for in /proc")
def test_a_bounded_process_ends_with_the_one_that_started_it() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        bounded = int(starter.stdout.readline())
        os.kill(bounded, 0)  # it is there
        starter.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{bounded}").exists():
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)
