"""A short run of each fuzzing target. `make fuzz` runs them longer."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = (
    *("framing", "messages", "labels", "values", "png", "infer", "manifest", "site", "text", "probe_answer"),
    *("image", "image_file", "animation", "model"),
)
RUNS = 2000


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all targets, and give the folder with their logs."""
    if not find_spec("atheris"):
        pytest.skip("atheris isn't installed: it has no wheel for this Python")
    folder = tmp_path_factory.mktemp("fuzz")
    command = [sys.executable, "-m", "tests.fuzz.parsers", "all", str(folder)]
    # Memory isn't limited, because a process inherits the high-water mark of its parent, which is pytest.
    command += [f"-atheris_runs={RUNS}", "-max_len=4096", "-seed=1", "-rss_limit_mb=0", f"-artifact_prefix={folder}/"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {log.stem for log in folder.glob("*.log")} == {*TARGETS}
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_a_parser_raises_only_its_own_errors(target: str, logs: Path) -> None:
    log = (logs / f"{target}.log").read_text(encoding="utf-8", errors="replace")
    assert f"Done {RUNS}" in log, log[-4000:]
    assert "ERROR" not in log, log[-4000:]
