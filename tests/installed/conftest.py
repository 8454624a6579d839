"""What users have who install the wheels: these tests import nothing from the checkout."""

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def command(*arguments: str | Path, cwd: Path) -> str:
    """Run a program that must succeed, and return what it prints."""
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheels of both distributions, and with this environment's other packages."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        [found] = self.folder.glob("lib/python*/site-packages")
        return found

    def run(self, code: str, cwd: Path) -> str:
        """Run Python code in a folder outside of the checkout, and return what it prints."""
        return command(self.python, "-c", code, cwd=cwd)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Build both wheels and install them, without a network."""
    folder, wheels = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "clients" / "python"):
        command(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels, cwd=project)
    command(sys.executable, "-m", "venv", "--without-pip", folder, cwd=wheels)
    installation = Installation(folder)
    pip = (sys.executable, "-m", "pip", "--python", installation.python, "install", "--no-deps", "--no-index")
    command(*pip, *wheels.glob("*.whl"), cwd=wheels)
    # Python ignores .pth files in a folder that is itself named by a .pth file, so the editable install stays out.
    (installation.packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return installation
