import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("own_network.py")
FOLDERS = ("export", "engines", "server", "clients/python")


def command(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheels of both distributions, and this one's other packages."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def packages(self) -> set[str]:
        """The packages below `keywarp`, asked of the environment itself: none may come from the checkout."""
        code = "import keywarp, pathlib; print(*(f for p in keywarp.__path__ for f in pathlib.Path(p).iterdir()))"
        found = [Path(name) for name in command(self.python, "-c", code, cwd=self.folder).split()]
        assert all(path.is_relative_to(self.folder) for path in found), found
        return {path.name for path in found}

    def check(self, script: Path) -> subprocess.CompletedProcess[str]:
        """Run `mypy --strict` on a script outside of the checkout, as a user does."""
        mypy: list[str | Path] = [sys.executable, "-m", "mypy", "--strict", "--python-executable", self.python]
        return subprocess.run([*mypy, script], cwd=script.parent, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Build and install both wheels without a network."""
    folder, wheels = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "clients" / "python"):
        command(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels, cwd=project)
    command(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheels)
    installation = Installation(folder)
    pip = (sys.executable, "-m", "pip", "--python", installation.python, "install", "--no-deps", "--no-index")
    command(*pip, *wheels.glob("*.whl"), cwd=wheels)
    # Python doesn't read the .pth files of a folder that one names, so the editable installation stays out.
    [purelib] = folder.glob("lib/python*/site-packages")
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return installation


def test_every_package_of_the_wheels_has_types(installed: Installation) -> None:
    in_checkout = {path.parent.name for folder in FOLDERS for path in ROOT.glob(f"{folder}/keywarp/*/__init__.py")}
    assert installed.packages() == in_checkout
    [purelib] = installed.folder.glob("lib/python*/site-packages")
    assert {path.parent.name for path in purelib.glob("keywarp/*/py.typed")} == in_checkout


def test_a_users_own_network_passes_mypy_strict_and_a_wrong_argument_fails(
    installed: Installation, tmp_path: Path
) -> None:
    script = tmp_path / "own_network.py"
    code = SCRIPT.read_text()
    script.write_text(code)
    done = installed.check(script)
    assert done.returncode == 0, done.stdout + done.stderr
    right = 'task="detection"'
    assert code.count(right) == 1
    script.write_text(code.replace(right, 'task="recognition"'))
    done = installed.check(script)
    assert done.returncode == 1
    [line, summary] = done.stdout.splitlines()
    assert 'Argument "task" to "cut" has incompatible type' in line
    assert summary.startswith("Found 1 error")
