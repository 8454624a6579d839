"""Files that can't be imported: one sentence each, no crash, and bounded memory and time."""

import os
from pathlib import Path

import pytest

from keywarp.importing.errors import ImportingError
from keywarp.importing.model_file import read_model
from tests.importing.hostile import HOSTILE, HostileFile

LONGEST = 600  # characters of an error


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_file_is_refused_in_one_sentence(hostile: HostileFile, tmp_path: Path) -> None:
    path = hostile.write(tmp_path)
    with pytest.raises(ImportingError, match=hostile.says) as caught:
        read_model(path, max_seconds=hostile.seconds)
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < LONGEST + len(str(path)), message
    assert "Traceback" not in message


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path in (tmp_path, tmp_path / "missing.onnx", pipe):
        with pytest.raises(ImportingError, match=r"can't be read|isn't a file"):
            read_model(path)
