"""All experiments, once."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.reproducing import Reproduced, write_photographs


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    """`keywarp reproduce all --preset smoke` has run."""
    folder = tmp_path_factory.mktemp("reproduce")
    work, results = write_photographs(folder / "work"), folder / "results"
    keywarp = Path(sys.executable).with_name("keywarp")
    done = subprocess.run(
        [keywarp, "reproduce", "all", "--preset", "smoke", "--work", work, "--out", results],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {str(file) for file in results.iterdir()}
    return Reproduced(work, results)
