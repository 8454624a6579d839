"""The folder of compiled graphs."""

import os
from pathlib import Path

from keywarp.engines.cache import prune


def test_the_oldest_files_are_deleted_until_the_rest_fits(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "folder/older", "oldest")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    prune(tmp_path, 300)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3
    prune(tmp_path, 150)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["new"]
    prune(tmp_path / "missing", 0)
