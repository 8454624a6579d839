import subprocess
import sys
from pathlib import Path

from tests.installed.conftest import ROOT, Installation

SCRIPT = Path(__file__).with_name("own_network.py")
FOLDERS = ("export", "engines", "server", "clients/python")


def mypy(installed: Installation, script: Path) -> subprocess.CompletedProcess[str]:
    """Check a script outside of the checkout, as a user does."""
    options = ("--strict", "--python-executable", installed.python)
    arguments: list[str | Path] = [sys.executable, "-m", "mypy", *options, script]
    return subprocess.run(arguments, cwd=script.parent, capture_output=True, encoding="utf-8", check=False)


def test_every_package_of_the_wheels_has_types(installed: Installation, tmp_path: Path) -> None:
    found = installed.run("import keywarp; print(*keywarp.__path__)", tmp_path).split()
    assert found == [str(installed.packages / "keywarp")]  # nothing comes from the checkout
    packages = {path.parent.name for folder in FOLDERS for path in ROOT.glob(f"{folder}/keywarp/*/__init__.py")}
    assert {path.name for path in (installed.packages / "keywarp").iterdir()} == packages
    assert {path.parent.name for path in installed.packages.glob("keywarp/*/py.typed")} == packages


def test_a_users_own_network_passes_mypy_strict_and_a_wrong_argument_fails(
    installed: Installation, tmp_path: Path
) -> None:
    script = tmp_path / "own_network.py"
    code = SCRIPT.read_text()
    script.write_text(code)
    done = mypy(installed, script)
    assert done.returncode == 0, done.stdout + done.stderr
    right = 'task="detection"'
    assert code.count(right) == 1
    script.write_text(code.replace(right, 'task="recognition"'))
    done = mypy(installed, script)
    assert done.returncode == 1
    [line, summary] = done.stdout.splitlines()
    assert 'Argument "task" to "cut" has incompatible type' in line
    assert summary.startswith("Found 1 error")
