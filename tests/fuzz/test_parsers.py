"""A short run of each fuzzing target. `make fuzz` runs them longer."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = "framing", "messages", "labels", "infer", "manifest", "site", "text", "image"
RUNS = 2000


@pytest.mark.parametrize("target", TARGETS)
def test_a_parser_raises_only_its_own_errors(target: str, tmp_path: Path) -> None:
    if not find_spec("atheris"):
        pytest.skip("atheris isn't installed, perhaps because it has no wheel for this Python")
    command = [sys.executable, "-m", "tests.fuzz.parsers", target, str(tmp_path / "corpus")]
    # Memory isn't limited, because the process inherits its high-water mark from pytest, which has started it.
    command += [f"-atheris_runs={RUNS}", "-max_len=4096", "-seed=1", "-rss_limit_mb=0", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS}" in done.stderr
