"""Files that can't be imported: one sentence each, no crash, and bounded memory and time."""

import os
from functools import partial
from pathlib import Path

import pytest

from keywarp.importing import model_file
from keywarp.importing.errors import ImportingError
from keywarp.importing.model_file import _read, read_model
from tests.importing.hostile import HOSTILE, HostileFile, network, saved

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
