"""Fixtures that several packages' tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.running import Server, serving, write_clip
from tests.tiny_bundle import tiny_bundle

if TYPE_CHECKING:
    from keywarp.datasets.middlebury import MiddleburyPair


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """Make a folder with one tiny bundle."""
    return tiny_bundle(tmp_path / "models" / "tiny").path


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Run a server process with the shipped bundle, for all tests that only stream through it."""
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the first 50 frames of the street video, for tests that need no more."""
    return write_clip(tmp_path_factory.mktemp("clip") / "bikes.mp4", 50)


@pytest.fixture(scope="session")
def pair() -> "MiddleburyPair":
    """Two real frames, 480 x 640, whose flow is known."""
    from keywarp.datasets.middlebury import grove3  # imports torch, which most tests do without

    return grove3(Path(__file__).parents[1] / ".cache" / "keywarp" / "packages")
